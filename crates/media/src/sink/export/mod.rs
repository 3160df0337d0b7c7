//! Results in the forms that other tools read, each made from the lines of `results.jsonl` and, where it shows or measures,
//! from the frames: so it is the same whether it is made during a run or later.
//!
//! | form | made by | opens in |
//! |---|---|---|
//! | COCO instances, JSON | [`CocoFile`] | CVAT, Label Studio, FiftyOne, pycocotools |
//! | MOTChallenge, text | [`MotFile`] | CVAT, TrackEval |
//! | a table, CSV | [`ObjectTable`] | spreadsheets, R, pandas |
//! | label images, PNG | [`LabelImages`] | everything |
//! | a segmentation, `.seg.nrrd` | [`SegmentationFile`] | 3D Slicer |
//! | overlays as a video, MP4 | [`VideoFile`] | everything |
//!
//! ```
//! use ultramotion_media::results::parse_line;
//! use ultramotion_media::sink::export::{Exporter, MotFile};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("tracks.txt");
//! let mut file: Box<dyn Exporter> = Box::new(MotFile::create(&path)?);
//! let line = r#"{"frame_id":0,"timestamp":0.0,"source":"a.mha","width":4,"height":2,"objects":[{"track_id":3,
//!     "confirmed":true,"label":"vessel","score":0.5,"box_xyxy":[1,0,3,2],"mask":{"size":[2,4],"counts":"8"}}]}"#;
//! file.take(&parse_line(line.as_bytes())?, None)?;
//! file.finish()?;
//! assert_eq!(std::fs::read_to_string(path)?, "1,3,1.000,0.000,2.000,2.000,0.5000,1,1\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod coco;
mod draft;
mod label_images;
mod labels;
mod mot;
mod segmentation;
mod table;
mod terminology;
mod video;

pub use coco::CocoFile;
pub use label_images::LabelImages;
pub use mot::MotFile;
pub use segmentation::SegmentationFile;
pub use table::ObjectTable;
use ultramotion_types::{BitMask, Frame, RecordedLine, RecordedObject};
pub use video::VideoFile;

use crate::error::MediaError;

/// A file, or a folder of them, that is made from results line by line.
pub trait Exporter {
    /// Takes the next frame's results: a line that was checked ([`RecordedLine::check`]), of a later frame than the last one.
    /// `frame` is the frame itself, where it is at hand.
    ///
    /// # Errors
    /// Where it cannot be written, or does not fit what was taken before. Nothing more can be taken then.
    fn take(&mut self, line: &RecordedLine, frame: Option<&Frame>) -> Result<(), MediaError>;

    /// Puts what was taken in its place. Without it no file is there.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn finish(self: Box<Self>) -> Result<(), MediaError>;
}

/// The name of a picture of a frame, as overlays have it.
fn picture_name(frame_id: u64) -> String {
    format!("{frame_id:06}.png")
}

/// The pixels of an object of a line that was checked.
fn mask_of(object: &RecordedObject, path: &std::path::Path) -> Result<BitMask, MediaError> {
    object.mask().map_err(|error| MediaError::export(path, format!("a mask is damaged: {error}")))
}

#[cfg(test)]
mod testing {
    //! Lines to export.

    use ultramotion_types::{BitMask, CocoRle, RecordedLine, RecordedObject};

    /// An object with a rectangle as its mask: left, top, right, bottom in pixels.
    pub(super) fn object(track_id: i32, label: &str, [x1, y1, x2, y2]: [usize; 4]) -> RecordedObject {
        let mask = BitMask::from_fn(16, 12, |x, y| (x1..x2).contains(&x) && (y1..y2).contains(&y));
        RecordedObject {
            track_id,
            confirmed: true,
            label: label.into(),
            score: 0.75,
            box_xyxy: [x1, y1, x2, y2].map(|edge| edge as f32),
            mask: CocoRle::encode(mask.view()),
            quality: None,
        }
    }

    /// A line of 16 x 12 pixels.
    pub(super) fn line(frame_id: u64, objects: Vec<RecordedObject>) -> RecordedLine {
        let timestamp_s = frame_id as f64 / 25.0;
        let line =
            RecordedLine { frame_id, timestamp_s, source: "a.mha".into(), width: 16, height: 12, objects };
        line.check().unwrap();
        line
    }
}
