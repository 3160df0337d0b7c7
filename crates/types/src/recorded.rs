//! A line of `results.jsonl` read back: as much of it as results are made into something else from.

use serde::Deserialize;

use crate::frame::MAX_SIDE_PX;
use crate::mask::{BitMask, CocoRle, RleError};
use crate::packet::Quality;

/// Most objects of a line: what an image of 8 bits can tell apart. A run has 72 at most.
pub const MAX_RECORDED_OBJECTS: usize = 255;

/// Farther from a frame, pixels, no box of it lies.
const MAX_COORDINATE: f32 = 1e6;

/// What a frame gave, as [`ResultLine`](crate::ResultLine) wrote it. Deserialised, it may say anything: see
/// [`RecordedLine::check`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RecordedLine {
    /// Number in the source.
    pub frame_id: u64,
    /// The source's own time, seconds.
    #[serde(rename = "timestamp")]
    pub timestamp_s: f64,
    /// Where the frame comes from.
    pub source: String,
    /// Pixels in a row of the frame.
    pub width: usize,
    /// Rows of the frame.
    pub height: usize,
    /// Every detection, best first.
    pub objects: Vec<RecordedObject>,
}

/// An object of a line.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RecordedObject {
    /// Identity.
    pub track_id: i32,
    /// Whether the track was seen often enough to be believed.
    pub confirmed: bool,
    /// What it is.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the frame.
    pub box_xyxy: [f32; 4],
    /// Its pixels, at the frame's size.
    pub mask: CocoRle,
    /// How well it shows, where that was computed.
    #[serde(default)]
    pub quality: Option<Quality>,
}

/// A line that no run writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A size that no frame has.
    #[error("a frame of {width}x{height} pixels is none: sides from 1 to {MAX_SIDE_PX} are")]
    Size {
        /// Claimed width, pixels.
        width: usize,
        /// Claimed height, pixels.
        height: usize,
    },
    /// More objects than [`MAX_RECORDED_OBJECTS`].
    #[error("{0} objects are too many: {MAX_RECORDED_OBJECTS} can be told apart")]
    Objects(usize),
    /// A box or a score that no object of a frame has.
    #[error("box and score of the object {0} are none that a frame has")]
    Numbers(usize),
    /// A mask of another size than the frame.
    #[error(
        "the mask of the object {object} is {mask_width}x{mask_height} pixels, but the frame is {width}x{height}"
    )]
    MaskSize {
        /// Its position in the line, from 1.
        object: usize,
        /// Width of the mask, pixels.
        mask_width: u32,
        /// Height of the mask, pixels.
        mask_height: u32,
        /// Width of the frame, pixels.
        width: usize,
        /// Height of the frame, pixels.
        height: usize,
    },
    /// A mask that cannot be decoded.
    #[error("object {object}: {error}")]
    Mask {
        /// Its position in the line, from 1.
        object: usize,
        /// What is wrong.
        error: RleError,
    },
}

impl RecordedLine {
    /// Whether frame, objects and masks can be what they say. After that a mask is decoded in as much memory as the frame's
    /// size asks for, and does not fail.
    ///
    /// # Errors
    /// [`LineError`] where they cannot.
    pub fn check(&self) -> Result<(), LineError> {
        let (width, height) = (self.width, self.height);
        if !(1..=MAX_SIDE_PX).contains(&width) || !(1..=MAX_SIDE_PX).contains(&height) {
            return Err(LineError::Size { width, height });
        }
        if self.objects.len() > MAX_RECORDED_OBJECTS {
            return Err(LineError::Objects(self.objects.len()));
        }
        for (object, recorded) in (1..).zip(&self.objects) {
            if !recorded.box_xyxy.iter().chain([&recorded.score]).all(|number| number.abs() <= MAX_COORDINATE)
            {
                return Err(LineError::Numbers(object));
            }
            let [mask_height, mask_width] = recorded.mask.size;
            if [mask_width as usize, mask_height as usize] != [width, height] {
                return Err(LineError::MaskSize { object, mask_width, mask_height, width, height });
            }
            recorded.mask.area_px().map_err(|error| LineError::Mask { object, error })?;
        }
        Ok(())
    }
}

impl RecordedObject {
    /// Its pixels.
    ///
    /// # Errors
    /// [`RleError`] where the mask was not checked and is damaged.
    pub fn mask(&self) -> Result<BitMask, RleError> {
        self.mask.decode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DetectedObject, ResultPacket};

    fn packet() -> ResultPacket {
        let mut packet = ResultPacket::default();
        (packet.frame_id, packet.timestamp_s, packet.source) = (7, 233.36, "a.mha".into());
        (packet.width, packet.height, packet.labels) = (9, 4, ["vessel".to_owned()].into());
        let object = DetectedObject {
            track_id: 3,
            confirmed: true,
            score: 0.912_345_6,
            box_xyxy: [1.1, 0.0, 5.7, 3.3],
            quality: Some(Quality { mean: 0.25, ..Quality::default() }),
            ..DetectedObject::default()
        };
        let mask = BitMask::from_fn(9, 4, |x, y| x > y);
        packet.push(object.clone(), mask.view().bits());
        packet.push(DetectedObject { quality: None, ..object }, &[]);
        packet
    }

    fn read(edit: impl FnOnce(&mut serde_json::Value)) -> Result<RecordedLine, LineError> {
        let mut value = serde_json::to_value(packet()).unwrap();
        edit(&mut value);
        let line: RecordedLine = serde_json::from_value(value).unwrap();
        line.check().map(|()| line)
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let packet = packet();
        let line = read(|_| {}).unwrap();
        assert_eq!((line.frame_id, line.timestamp_s, line.source.as_str()), (7, 233.36, "a.mha"));
        assert_eq!((line.width, line.height, line.objects.len()), (9, 4, 2));
        for (recorded, (object, mask)) in line.objects.iter().zip(packet.objects_with_masks()) {
            assert_eq!((recorded.track_id, recorded.confirmed, recorded.label.as_str()), (3, true, "vessel"));
            assert_eq!((recorded.score, recorded.box_xyxy), (object.score, object.box_xyxy));
            assert_eq!(recorded.quality, object.quality);
            assert_eq!(recorded.mask().unwrap().view(), mask);
        }
    }

    #[test]
    fn lines_that_no_run_writes_are_refused() {
        type Edit = fn(&mut serde_json::Value);
        let problem = |edit: Edit| read(edit).unwrap_err().to_string();
        let cases: [(Edit, &str); 6] = [
            (|line| line["width"] = 0.into(), "a frame of 0x4 pixels is none: sides from 1 to 8192 are"),
            (
                |line| line["objects"] = vec![line["objects"][0].clone(); 256].into(),
                "256 objects are too many: 255 can be told apart",
            ),
            (
                |line| line["objects"][1]["box_xyxy"][2] = 1e300.into(),
                "box and score of the object 2 are none that a frame has",
            ),
            (
                |line| line["objects"][1]["mask"]["size"] = vec![8, 9].into(),
                "the mask of the object 2 is 9x8 pixels, but the frame is 9x4",
            ),
            (
                |line| line["objects"][0]["mask"]["counts"] = "1".into(),
                "object 1: the mask's runs cover 1 pixels, its size is 36",
            ),
            (
                |line| line["objects"][0]["mask"]["counts"] = "~".into(),
                "object 1: the mask's counts are damaged at character 0",
            ),
        ];
        for (edit, sentence) in cases {
            assert_eq!(problem(edit), sentence);
        }
    }
}
