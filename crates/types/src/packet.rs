//! What leaves for each frame.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::frame::{FrameError, TimeSource};
use crate::mask::MaskView;
use crate::modes::Modes;

/// What is known of a track, or of the scene.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Visibility {
    /// Not seen for longer than `relocalize_s`.
    #[default]
    Lost = 0,
    /// Not seen now, but lately.
    Relocalizing = 1,
    /// Seen in this frame.
    Visible = 2,
}

impl Visibility {
    /// The value a tensor holds. Anything unknown is `Lost`.
    pub fn from_i32(value: i32) -> Self {
        match value {
            1 => Self::Relocalizing,
            2 => Self::Visible,
            _ => Self::Lost,
        }
    }

    /// `VISIBLE`, `RELOCALIZING` or `LOST`, as result files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "LOST",
            Self::Relocalizing => "RELOCALIZING",
            Self::Visible => "VISIBLE",
        }
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A network whose answers to a frame are not finite numbers. Nothing is drawn from such a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The detector.
    Detector,
    /// The segmenter.
    Segmenter,
}

/// One detected structure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DetectedObject {
    /// Identity, never given twice in a run.
    pub track_id: i32,
    /// Whether the track was seen often enough to be believed.
    pub confirmed: bool,
    /// Class; see [`ResultPacket::label`].
    pub class: usize,
    /// 0 to 1.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the frame.
    pub box_xyxy: [f32; 4],
    /// The segmenter's estimate of the mask's IoU with the truth.
    pub mask_score: f32,
    /// Pixels of the mask.
    pub mask_area_px: usize,
    /// Whether somebody pointed at it; the detector found it otherwise.
    pub prompted: bool,
    /// How well it shows, where that is computed.
    pub quality: Option<Quality>,
}

/// How well an object shows in the image, each 0 (not at all) to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Sharpness of the edge along the outline.
    pub edge: f32,
    /// Contrast of the inside against a ring outside.
    pub contrast: f32,
    /// Share of the outline along which there is an edge.
    pub continuity: f32,
    /// Likeness of shape and place with the frame before.
    pub stability: f32,
    /// Visual likeness with the track's last good frames.
    pub likeness: f32,
    /// Weighted mean of these.
    pub mean: f32,
}

/// Milliseconds of each part of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatencyMs {
    /// From the frame's arrival to the packet.
    pub total: f64,
    /// Copy to the device.
    pub upload: f64,
    /// Detector, with the frame's preparation.
    pub detect: f64,
    /// Assignment and track update.
    #[serde(rename = "match")]
    pub matching: f64,
    /// Image encoder, mask decoder and masks at full size.
    pub segment: f64,
    /// Copy from the device.
    pub download: f64,
}

/// Transfers, waits and allocations on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Transfers {
    /// Copies to the device.
    pub h2d: u64,
    /// Their bytes.
    pub h2d_bytes: u64,
    /// Copies from the device.
    pub d2h: u64,
    /// Their bytes.
    pub d2h_bytes: u64,
    /// Copies from one place of the device to another: of frames that are on it already. Named in a line of results only where
    /// there are any.
    #[serde(skip_serializing_if = "is_zero")]
    pub d2d: u64,
    /// Their bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub d2d_bytes: u64,
    /// Waits of the host for the device.
    pub host_syncs: u64,
    /// Allocations on the device.
    pub allocations: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Everything that is known about a frame. Serialised, it is a line of `results.jsonl`.
#[derive(Debug, Clone, Default)]
pub struct ResultPacket {
    /// Number in the source.
    pub frame_id: u64,
    /// The source's own time, seconds.
    pub timestamp_s: f64,
    /// Where that time is from.
    pub time_source: TimeSource,
    /// Where the frame comes from.
    pub source: String,
    /// Pixels in a row of the frame.
    pub width: usize,
    /// Rows of the frame.
    pub height: usize,
    /// State of the scene.
    pub state: Visibility,
    /// Every detection above the threshold, best first; none when there is a fault.
    pub objects: Vec<DetectedObject>,
    /// Whether a network failed on this frame.
    pub fault: Option<Fault>,
    /// Times.
    pub latency_ms: LatencyMs,
    /// Transfers, waits and allocations on the device.
    pub transfers: Transfers,
    /// Device that computed it: `cpu`, `cuda`.
    pub device: &'static str,
    /// Why it was computed there and not on the requested device.
    pub fallback: Option<Arc<str>>,
    /// How it was computed.
    pub modes: Modes,
    /// Name of each class.
    pub labels: Arc<[String]>,
    /// Masks of the objects, one after another.
    mask_bits: Vec<u8>,
}

impl ResultPacket {
    /// Lets all objects go, and makes room for so many of a frame of this size: more objects than ever before must not
    /// cost an allocation.
    ///
    /// # Errors
    /// [`FrameError::Memory`] where there is no memory for their masks.
    pub fn begin(&mut self, width: usize, height: usize, capacity: usize) -> Result<(), FrameError> {
        (self.width, self.height) = (width, height);
        self.objects.clear();
        self.objects.reserve(capacity);
        self.mask_bits.clear();
        let bytes = capacity.saturating_mul(self.mask_bytes());
        self.mask_bits.try_reserve(bytes).map_err(|_| FrameError::Memory { width, height, bytes })
    }

    /// Adds an object. `mask_bits` are `[height, ceil(width / 8)]` as [`MaskView`] has them; another number of bytes is
    /// cut or filled with pixels outside.
    pub fn push(&mut self, object: DetectedObject, mask_bits: &[u8]) {
        let bytes = self.mask_bytes();
        self.objects.push(object);
        self.mask_bits.extend_from_slice(&mask_bits[..bytes.min(mask_bits.len())]);
        self.mask_bits.resize(self.objects.len() * bytes, 0);
    }

    /// Makes it the packet of a larger frame, of which the one that was looked at is the part whose left top pixel is here.
    ///
    /// # Errors
    /// [`FrameError::Memory`] where there is no memory for masks of that size.
    pub fn place_in(
        &mut self,
        width: usize,
        height: usize,
        [left, top]: [usize; 2],
    ) -> Result<(), FrameError> {
        let (from_row, to_row) = (self.width.div_ceil(8), width.div_ceil(8));
        let bytes = self.objects.len() * height * to_row;
        let mut placed = Vec::new();
        placed.try_reserve_exact(bytes).map_err(|_| FrameError::Memory { width, height, bytes })?;
        placed.resize(bytes, 0_u8);
        let from_bytes = self.mask_bytes();
        for object in 0..self.objects.len() {
            let from = &self.mask_bits[object * from_bytes..][..from_bytes];
            let to = &mut placed[object * height * to_row..][..height * to_row];
            for (from, to) in
                from.chunks_exact(from_row.max(1)).zip(to.chunks_exact_mut(to_row.max(1)).skip(top))
            {
                for (at, &byte) in from.iter().enumerate() {
                    let bits = u16::from(byte) << (left % 8);
                    for (byte, bits) in to.iter_mut().skip(left / 8 + at).zip(bits.to_le_bytes()) {
                        *byte |= bits;
                    }
                }
            }
        }
        for object in &mut self.objects {
            let [x, y] = [left as f32, top as f32];
            object.box_xyxy = [
                object.box_xyxy[0] + x,
                object.box_xyxy[1] + y,
                object.box_xyxy[2] + x,
                object.box_xyxy[3] + y,
            ];
        }
        (self.width, self.height, self.mask_bits) = (width, height, placed);
        Ok(())
    }

    /// Name of a class.
    pub fn label(&self, class: usize) -> &str {
        self.labels.get(class).map_or("unknown", String::as_str)
    }

    /// Mask of an object at the frame's size, by its position in `objects`.
    pub fn mask(&self, object: usize) -> Option<MaskView<'_>> {
        let bytes = self.mask_bytes();
        let bits = self.mask_bits.get(object * bytes..(object + 1) * bytes)?;
        MaskView::new(self.width, self.height, bits).filter(|_| object < self.objects.len())
    }

    /// Masks of all objects, one after another, each `[height, ceil(width / 8)]` as [`MaskView`] has them.
    pub fn mask_bits(&self) -> &[u8] {
        &self.mask_bits
    }

    /// Objects with their masks, best first.
    pub fn objects_with_masks(&self) -> impl Iterator<Item = (&DetectedObject, MaskView<'_>)> {
        self.objects.iter().enumerate().filter_map(|(i, object)| Some((object, self.mask(i)?)))
    }

    fn mask_bytes(&self) -> usize {
        self.height * self.width.div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_belong_to_their_objects() {
        let mut packet = ResultPacket::default();
        packet.begin(9, 2, 2).unwrap();
        packet.push(DetectedObject::default(), &[1, 0, 0, 1]);
        packet.push(DetectedObject::default(), &[2]);
        let areas: Vec<usize> = packet.objects_with_masks().map(|(_, mask)| mask.area_px()).collect();
        assert_eq!(areas, [2, 1]);
        assert!(packet.mask(1).is_some_and(|mask| mask.contains(1, 0)) && packet.mask(2).is_none());
        packet.begin(9, 2, 2).unwrap();
        assert!(packet.mask(0).is_none());
    }

    #[test]
    fn a_part_is_placed_in_its_frame() {
        for left in [0, 1, 7, 8, 13] {
            let mut packet = ResultPacket::default();
            packet.begin(9, 2, 2).unwrap();
            let object = DetectedObject { box_xyxy: [0.5, 0.0, 9.0, 2.0], ..DetectedObject::default() };
            packet.push(DetectedObject::default(), &[0; 4]);
            packet.push(object, &[0b101, 1, 0x80, 0]);
            packet.place_in(24, 5, [left, 3]).unwrap();
            let inside: Vec<[usize; 2]> = (0..24 * 5).map(|at| [at % 24, at / 24]).collect();
            let mask = packet.mask(1).unwrap();
            let inside: Vec<_> = inside.into_iter().filter(|&[x, y]| mask.contains(x, y)).collect();
            assert_eq!(inside, [[left, 3], [left + 2, 3], [left + 8, 3], [left + 7, 4]]);
            assert_eq!(packet.mask(0).map(MaskView::area_px), Some(0));
            let x = left as f32;
            assert_eq!(packet.objects[1].box_xyxy, [x + 0.5, 3.0, x + 9.0, 5.0]);
        }
    }

    #[test]
    fn masks_that_no_memory_holds_are_an_error() {
        let error = ResultPacket::default().begin(1 << 40, 1 << 20, 300).unwrap_err();
        assert!(matches!(error, FrameError::Memory { width: 0x100_0000_0000, .. }), "{error}");
    }
}
