//! A picture of every frame with true and found outlines, worst frame first.

use std::path::{Path, PathBuf};

use image::{ExtendedColorType, save_buffer};
use ultramotion_media::MediaError;
use ultramotion_media::sink::{Overlay, OverlayObject};
use ultramotion_types::Frame;
use ultramotion_types::MaskView;

use super::classes::MaskClasses;
use super::truth::TrueObject;
use crate::error::EvaluationError;

/// Name and value of the colour of a class's true outlines; found ones are white.
pub(crate) fn true_colour(class: usize) -> (&'static str, [u8; 3]) {
    const COLOURS: [(&str, [u8; 3]); 4] = [
        ("green", [0, 230, 80]),
        ("yellow", [255, 210, 0]),
        ("cyan", [0, 200, 255]),
        ("magenta", [255, 80, 220]),
    ];
    COLOURS[class % COLOURS.len()]
}

/// A folder of pictures: each frame with true outlines in the colour of their class, and found ones in white.
pub struct Gallery {
    folder: PathBuf,
    overlay: Overlay,
}

impl Gallery {
    /// Makes the folder. It must be empty: pictures of other runs would stand between those of this one.
    pub fn create(folder: &Path) -> Result<Self, EvaluationError> {
        let error = |source| MediaError::Io { action: "create the folder", path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(error)?;
        if std::fs::read_dir(folder).map_err(error)?.next().is_some() {
            return Err(EvaluationError::GalleryNotEmpty(folder.to_owned()));
        }
        Ok(Gallery { folder: folder.to_owned(), overlay: Overlay::new() })
    }

    /// What the colours say, for the classes of the masks in their order.
    pub fn legend(&self, classes: &MaskClasses) -> String {
        let colours: Vec<String> = classes
            .names()
            .into_iter()
            .enumerate()
            .map(|(class, name)| format!("{} is a true {name}", true_colour(class).0))
            .collect();
        format!("{}, worst first; {}, white is found", self.folder.display(), colours.join(", "))
    }

    /// Draws a frame. The name begins with the frame's `quality`, 0 to 1, so that names sort worst first.
    pub(crate) fn add(
        &mut self,
        name: &str,
        quality: f64,
        frame: &Frame,
        found: &[OverlayObject<'_>],
        truth: &[TrueObject],
    ) -> Result<(), MediaError> {
        self.overlay.draw(frame, found);
        let [width, height] = self.overlay.size_px();
        let mut pixels = self.overlay.rgb().to_vec();
        for object in truth {
            draw_outline(&mut pixels, object.mask.view(), true_colour(object.class).1);
        }
        // A name comes from a file name, and can be none of another folder.
        let path = self.folder.join(format!("{quality:.3}_{name}.png"));
        save_buffer(&path, &pixels, width as u32, height as u32, ExtendedColorType::Rgb8).map_err(|error| {
            let source = std::io::Error::other(error);
            MediaError::Io { action: "write", path, source }
        })
    }
}

/// Pixels of a mask with a neighbour outside, two pixels thick, so that they show beside the found outline.
fn draw_outline(pixels: &mut [u8], mask: MaskView<'_>, colour: [u8; 3]) {
    let Some([x1, y1, x2, y2]) = mask.box_xyxy() else { return };
    for y in y1..y2 {
        for x in x1..x2 {
            let near_edge = (1..=2).any(|r| {
                !(mask.contains(x + r, y)
                    && mask.contains(x, y + r)
                    && x >= r
                    && mask.contains(x - r, y)
                    && y >= r
                    && mask.contains(x, y - r))
            });
            if mask.contains(x, y) && near_edge {
                pixels[(y * mask.width() + x) * 3..][..3].copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ultramotion_types::BitMask;

    use super::*;

    #[test]
    fn names_sort_worst_first_and_truth_is_coloured() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new");
        let mut gallery = Gallery::create(&folder).unwrap();
        let mask = BitMask::from_fn(60, 50, |x, y| (10..30).contains(&x) && (5..25).contains(&y));
        let object = TrueObject { class: 0, box_xyxy: [10.0, 5.0, 30.0, 25.0], mask };
        let frame = Frame::grey8(60, 50, vec![40; 3000]);
        for (name, quality) in [("good", 0.9), ("bad", 0.0), ("fair", 0.5)] {
            gallery.add(name, quality, &frame, &[], std::slice::from_ref(&object)).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.000_bad.png", "0.500_fair.png", "0.900_good.png"]);
        let picture = image::open(folder.join("0.000_bad.png")).unwrap().into_rgb8();
        assert_eq!((picture.get_pixel(10, 15).0, picture.get_pixel(20, 15).0), (true_colour(0).1, [40; 3]));
        assert!(Gallery::create(&folder).is_err(), "it is not empty any more");
    }
}
