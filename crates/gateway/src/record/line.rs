//! A result packet as a line of `results.jsonl`.

use serde::Serialize;
use ultramotion_engine::ledger::Counts;
use ultramotion_media::mask::{BinaryMask, CocoRle};
use ultramotion_pipeline::{Fault, LatencyMs, MaskView, Modes, ResultPacket};

/// One line: what a frame gave.
#[derive(Debug, Serialize)]
pub struct ResultLine<'a> {
    frame_id: u64,
    timestamp: f64,
    source: &'a str,
    width: usize,
    height: usize,
    state: &'static str,
    objects: Vec<ObjectRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
    latency_ms: LatencyMs,
    transfers: Transfers,
    device: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a str>,
    modes: Modes,
}

#[derive(Debug, Serialize)]
struct ObjectRecord<'a> {
    track_id: i32,
    confirmed: bool,
    label: &'a str,
    score: f32,
    box_xyxy: [f32; 4],
    mask: CocoRle,
    mask_score: f32,
}

/// Transfers, waits and allocations on the device.
#[derive(Debug, Serialize)]
pub struct Transfers {
    /// Copies to the device.
    pub h2d: u64,
    /// Their bytes.
    pub h2d_bytes: u64,
    /// Copies from the device.
    pub d2h: u64,
    /// Their bytes.
    pub d2h_bytes: u64,
    /// Waits of the host for the device.
    pub host_syncs: u64,
    /// Allocations on the device.
    pub allocations: u64,
}

impl From<Counts> for Transfers {
    fn from(counts: Counts) -> Self {
        let Counts { h2d, h2d_bytes, d2h, d2h_bytes, host_syncs, allocations, .. } = counts;
        Transfers { h2d, h2d_bytes, d2h, d2h_bytes, host_syncs, allocations }
    }
}

/// A mask for drawing and coding.
pub fn binary_mask(mask: MaskView<'_>) -> BinaryMask {
    BinaryMask::from_fn(mask.width, mask.height, |x, y| mask.contains(x, y))
}

impl<'a> ResultLine<'a> {
    /// The line of a packet; `masks` belong to its objects, in order.
    pub fn new(packet: &'a ResultPacket, masks: &[BinaryMask]) -> Self {
        let objects = packet.objects.iter().zip(masks).map(|(object, mask)| ObjectRecord {
            track_id: object.track_id,
            confirmed: object.confirmed,
            label: packet.label(object.class),
            score: object.score,
            box_xyxy: object.box_xyxy,
            mask: CocoRle::encode(mask),
            mask_score: object.mask_score,
        });
        ResultLine {
            frame_id: packet.frame_id,
            timestamp: packet.timestamp_s,
            source: &packet.source,
            width: packet.width,
            height: packet.height,
            state: packet.state.as_str(),
            objects: objects.collect(),
            fault: packet.fault,
            latency_ms: packet.latency_ms,
            transfers: packet.transfers.into(),
            device: packet.device,
            fallback: packet.fallback.as_deref(),
            modes: packet.modes,
        }
    }

    /// The same line with another frame number, and another name of the source.
    pub fn renamed(self, frame_id: u64, source: &'a str) -> Self {
        ResultLine { frame_id, source, ..self }
    }
}

/// Masks of all objects of a packet.
pub fn binary_masks(packet: &ResultPacket) -> Vec<BinaryMask> {
    (0..packet.objects.len()).filter_map(|i| packet.mask(i)).map(binary_mask).collect()
}
