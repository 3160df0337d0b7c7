//! Masks as images whose values tell objects apart.

use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use ultramotion_types::{Frame, RecordedLine};

use super::draft::Draft;
use super::{Exporter, mask_of, picture_name};
use crate::error::MediaError;

/// The table beside the images.
const TABLE: &str = "labels.csv";

/// A folder with a grey PNG of 8 bits for each frame: 0 where nothing is, 1 for the best object, 2 for the next. Where two
/// overlap, the better one is seen. `labels.csv` says which object a value of a file is: `file,value,track_id,label`.
#[derive(Debug)]
pub struct LabelImages {
    folder: PathBuf,
    table: csv::Writer<Draft>,
    grey: Vec<u8>,
}

impl LabelImages {
    /// Makes the folder, where it is not there yet.
    ///
    /// # Errors
    /// Where it cannot be made, or nothing can be written to it.
    pub fn create(folder: &Path) -> Result<Self, MediaError> {
        std::fs::create_dir_all(folder).map_err(MediaError::io("create the folder", folder))?;
        let mut table = csv::Writer::from_writer(Draft::create(&folder.join(TABLE))?);
        table
            .write_record(["file", "value", "track_id", "label"])
            .map_err(|error| table.get_ref().cannot_write()(error.into()))?;
        Ok(Self { folder: folder.to_owned(), table, grey: Vec::new() })
    }
}

impl Exporter for LabelImages {
    fn take(&mut self, line: &RecordedLine, _frame: Option<&Frame>) -> Result<(), MediaError> {
        let name = picture_name(line.frame_id);
        let path = self.folder.join(&name);
        self.grey.clear();
        self.grey.resize(line.width * line.height, 0);
        // A line has 255 objects at most.
        let values: Vec<u8> = (1..=u8::MAX).take(line.objects.len()).collect();
        for (value, object) in values.iter().zip(&line.objects).rev() {
            for [x, y] in mask_of(object, &path)?.view().pixels() {
                self.grey[y * line.width + x] = *value;
            }
        }
        let mut encoded = Vec::new();
        PngEncoder::new(&mut encoded)
            .write_image(&self.grey, line.width as u32, line.height as u32, ExtendedColorType::L8)
            .map_err(|error| MediaError::io("encode", &path)(std::io::Error::other(error)))?;
        std::fs::write(&path, encoded).map_err(MediaError::io("write", &path))?;
        for (value, object) in values.iter().zip(&line.objects) {
            let row = [&name, &value.to_string(), &object.track_id.to_string(), &object.label];
            self.table
                .write_record(row)
                .map_err(|error| self.table.get_ref().cannot_write()(error.into()))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), MediaError> {
        let cannot_write = self.table.get_ref().cannot_write();
        let file = self.table.into_inner().map_err(|error| cannot_write(error.into_error()))?;
        file.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{line, object};
    use super::*;

    #[test]
    fn values_are_the_objects_of_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a").join("masks");
        let mut images = Box::new(LabelImages::create(&folder).unwrap());
        let objects = vec![object(300, "vessel", [1, 2, 5, 8]), object(7, "bone, \"A\"", [4, 2, 9, 4])];
        images.take(&line(3, objects), None).unwrap();
        images.take(&line(4, vec![]), None).unwrap();
        images.finish().unwrap();
        let image = image::open(folder.join("000003.png")).unwrap();
        assert_eq!(image.color(), image::ColorType::L8);
        let image = image.into_luma8();
        for (x, y, pixel) in image.enumerate_pixels() {
            let is_vessel = (1..5).contains(&x) && (2..8).contains(&y);
            let is_bone = (4..9).contains(&x) && (2..4).contains(&y);
            let value = if is_vessel {
                1
            } else if is_bone {
                2
            } else {
                0
            };
            assert_eq!(pixel.0, [value], "{x}, {y}");
        }
        assert!(image::open(folder.join("000004.png")).unwrap().into_luma8().iter().all(|value| *value == 0));
        let table = std::fs::read_to_string(folder.join("labels.csv")).unwrap();
        assert_eq!(
            table,
            "file,value,track_id,label\n000003.png,1,300,vessel\n000003.png,2,7,\"bone, \"\"A\"\"\"\n"
        );
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("masks");
        std::fs::write(&path, "").unwrap();
        let problem = LabelImages::create(&path).unwrap_err().to_string();
        assert!(
            problem.starts_with("cannot create the folder") && problem.ends_with("exists already"),
            "{problem}"
        );
    }
}
