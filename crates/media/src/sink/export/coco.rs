//! COCO's JSON of instances, <https://cocodataset.org/#format-data>, with the run lengths as pycocotools reads them.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use serde::Serialize;
use ultramotion_types::{CocoRle, Frame, RecordedLine};

use super::draft::Draft;
use super::labels::Labels;
use super::{Exporter, picture_name};
use crate::error::MediaError;
use crate::source::SINGLE_ENDINGS;

/// Images, annotations and categories in one file. Annotations also have `track_id` and `score`.
///
/// `file_name` is that of the image where the source is images, and else the one that overlays and label images have:
/// `000012.png` for frame 12. Annotations wait in a file of their own until the images are complete.
#[derive(Debug)]
pub struct CocoFile {
    file: Draft,
    annotations: BufWriter<File>,
    labels: Labels,
    images: u64,
    objects: u64,
}

#[derive(Serialize)]
struct Image<'a> {
    id: u64,
    width: usize,
    height: usize,
    file_name: &'a str,
    frame_id: u64,
    timestamp: f64,
}

#[derive(Serialize)]
struct Annotation<'a> {
    id: u64,
    image_id: u64,
    category_id: usize,
    /// Left, top, width, height.
    bbox: [f32; 4],
    area: u64,
    segmentation: &'a CocoRle,
    iscrowd: u8,
    track_id: i32,
    score: f32,
}

#[derive(Serialize)]
struct Category<'a> {
    id: usize,
    name: &'a str,
    supercategory: &'a str,
}

impl CocoFile {
    /// Begins a file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let mut file = Draft::create(path)?;
        let annotations = BufWriter::new(file.scratch()?);
        let description = "Found by ultramotion. Research software, not a medical device.";
        write!(file, r#"{{"info":{{"description":"{description}"}},"licenses":[],"images":["#)
            .map_err(file.cannot_write())?;
        Ok(Self { file, annotations, labels: Labels::default(), images: 0, objects: 0 })
    }
}

impl Exporter for CocoFile {
    fn take(&mut self, line: &RecordedLine, _frame: Option<&Frame>) -> Result<(), MediaError> {
        let source = Path::new(&line.source);
        let is_image = source.extension().is_some_and(|ending| {
            SINGLE_ENDINGS.contains(&ending.to_string_lossy().to_ascii_lowercase().as_str())
        });
        let own_name =
            source.file_name().filter(|_| is_image).map(|name| name.to_string_lossy().into_owned());
        self.images += 1;
        let image = Image {
            id: self.images,
            width: line.width,
            height: line.height,
            file_name: &own_name.unwrap_or_else(|| picture_name(line.frame_id)),
            frame_id: line.frame_id,
            timestamp: line.timestamp_s,
        };
        write_item(&mut self.file, self.images, &image).map_err(self.file.cannot_write())?;
        for object in &line.objects {
            self.objects += 1;
            let [x1, y1, x2, y2] = object.box_xyxy;
            let area = object.mask.area_px().map_err(|error| self.file.export(error.to_string()))?;
            let annotation = Annotation {
                id: self.objects,
                image_id: self.images,
                category_id: self.labels.number(&object.label),
                bbox: [x1, y1, x2 - x1, y2 - y1],
                area,
                segmentation: &object.mask,
                iscrowd: 0,
                track_id: object.track_id,
                score: object.score,
            };
            write_item(&mut self.annotations, self.objects, &annotation).map_err(self.file.cannot_write())?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), MediaError> {
        let Self { mut file, annotations, labels, .. } = *self;
        let cannot_write = file.cannot_write();
        let put_together = || -> std::io::Result<()> {
            write!(file, "],\n\"annotations\":[")?;
            let mut annotations = annotations.into_inner()?;
            annotations.rewind()?;
            std::io::copy(&mut annotations, &mut file)?;
            write!(file, "],\n\"categories\":[")?;
            for (id, name) in (1..).zip(labels.in_order()) {
                write_item(&mut file, id as u64, &Category { id, name, supercategory: "" })?;
            }
            writeln!(file, "]}}")
        };
        put_together().map_err(cannot_write)?;
        file.finish()
    }
}

/// One value of an array, by its number from 1, in a line of its own.
fn write_item(to: &mut impl Write, number: u64, item: &impl Serialize) -> std::io::Result<()> {
    to.write_all(if number == 1 { b"\n" } else { b",\n" })?;
    Ok(serde_json::to_writer(to, item)?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{line, object};
    use super::*;

    fn written(lines: &[RecordedLine]) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coco.json");
        let mut file = Box::new(CocoFile::create(&path).unwrap());
        lines.iter().for_each(|line| file.take(line, None).unwrap());
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn annotations_name_image_and_category() {
        let vessel = object(7, "vessel", [1, 2, 5, 8]);
        let lines = [
            line(3, vec![vessel.clone(), object(8, "bone \"A\"", [0, 0, 2, 2])]),
            line(4, vec![]),
            line(9, vec![vessel]),
        ];
        let file = written(&lines);
        let frames: Vec<_> =
            file["images"].as_array().unwrap().iter().map(|image| &image["file_name"]).collect();
        assert_eq!(frames, ["000003.png", "000004.png", "000009.png"]);
        let annotations = file["annotations"].as_array().unwrap();
        let expected = json!({
            "id": 1, "image_id": 1, "category_id": 1, "bbox": [1.0, 2.0, 4.0, 6.0], "area": 24, "iscrowd": 0,
            "segmentation": {"size": [12, 16], "counts": lines[0].objects[0].mask.counts}, "track_id": 7, "score": 0.75,
        });
        assert_eq!(annotations[0], expected);
        assert_eq!((annotations.len(), &annotations[2]["image_id"]), (3, &json!(3)));
        assert_eq!(annotations[1]["category_id"], 2);
        let categories = json!([
            {"id": 1, "name": "vessel", "supercategory": ""}, {"id": 2, "name": "bone \"A\"", "supercategory": ""}
        ]);
        assert_eq!(file["categories"], categories);
    }

    #[test]
    fn images_keep_their_names_and_nothing_is_still_a_file() {
        let of = |source: &str| RecordedLine { source: source.into(), ..line(3, vec![]) };
        let file = written(&[of("stills/left 1.JPG")]);
        assert_eq!(file["images"][0]["file_name"], "left 1.JPG");
        let file = written(&[of("scans/stack.tif")]);
        assert_eq!(file["images"][0]["file_name"], "000003.png");
        let file = written(&[]);
        assert_eq!(
            (&file["images"], &file["annotations"], &file["categories"]),
            (&json!([]), &json!([]), &json!([]))
        );
    }
}
