//! What leaves for each frame.

use serde::Serialize;
use ultramotion_engine::Device;
use ultramotion_engine::ledger::Counts;
use ultramotion_tracking::track::Visibility;

use crate::options::{Modes, PipelineOptions};

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
#[derive(Debug, Clone, PartialEq)]
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

/// Binary masks of a frame, bit-packed. Reused from frame to frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaskBits {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) bytes: Vec<u8>,
}

/// One mask at the frame's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskView<'a> {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, ceil(width / 8)]`: bit 0 of a byte is the leftmost of its 8 pixels.
    pub bits: &'a [u8],
}

impl MaskView<'_> {
    /// Whether a pixel is inside.
    pub fn contains(&self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.bits[y * self.width.div_ceil(8) + x / 8] >> (x % 8) & 1 == 1
    }
}

/// Everything that is known about a frame.
#[derive(Debug, Clone)]
pub struct ResultPacket {
    /// Number in the source.
    pub frame_id: u64,
    /// The source's own time, seconds.
    pub timestamp_s: f64,
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
    pub transfers: Counts,
    /// Device that computed it: `cpu`, `cuda`.
    pub device: &'static str,
    /// Why it was computed there and not on the device that was wished for.
    pub fallback: Option<String>,
    /// How it was computed.
    pub modes: Modes,
    pub(crate) labels: Vec<String>,
    pub(crate) masks: MaskBits,
}

impl ResultPacket {
    pub(crate) fn new(options: &PipelineOptions, labels: &[String], device: &Device, modes: Modes) -> Self {
        ResultPacket {
            frame_id: 0,
            timestamp_s: 0.0,
            source: String::new(),
            width: 0,
            height: 0,
            state: Visibility::Lost,
            objects: Vec::with_capacity(options.max_objects),
            fault: None,
            latency_ms: LatencyMs::default(),
            transfers: Counts::default(),
            device: device.name(),
            fallback: device.fallback().map(str::to_owned),
            modes,
            labels: labels.to_vec(),
            masks: MaskBits::default(),
        }
    }

    /// Name of a class.
    pub fn label(&self, class: usize) -> &str {
        self.labels.get(class).map_or("unknown", String::as_str)
    }

    /// Mask of an object, by its position in `objects`.
    pub fn mask(&self, object: usize) -> Option<MaskView<'_>> {
        let bytes = self.masks.height * self.masks.width.div_ceil(8);
        let bits = self.masks.bytes.get(object * bytes..(object + 1) * bytes)?;
        (object < self.objects.len()).then_some(MaskView {
            width: self.masks.width,
            height: self.masks.height,
            bits,
        })
    }
}
