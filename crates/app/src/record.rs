//! A result packet as a line of `results.jsonl`.

use serde::Serialize;
use ultramotion_engine::ledger::Counts;
use ultramotion_media::mask::{BinaryMask, CocoRle};
use ultramotion_pipeline::{Fault, LatencyMs, MaskView, Modes, ResultPacket};

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
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
pub(crate) struct Transfers {
    pub h2d: u64,
    pub h2d_bytes: u64,
    pub d2h: u64,
    pub d2h_bytes: u64,
    pub host_syncs: u64,
    pub allocations: u64,
}

impl From<Counts> for Transfers {
    fn from(counts: Counts) -> Self {
        let Counts { h2d, h2d_bytes, d2h, d2h_bytes, host_syncs, allocations, .. } = counts;
        Transfers { h2d, h2d_bytes, d2h, d2h_bytes, host_syncs, allocations }
    }
}

/// A mask for drawing and coding.
pub(crate) fn binary_mask(mask: MaskView<'_>) -> BinaryMask {
    BinaryMask::from_fn(mask.width, mask.height, |x, y| mask.contains(x, y))
}

impl<'a> Record<'a> {
    /// The line of a packet; `masks` belong to its objects, in order.
    pub(crate) fn new(packet: &'a ResultPacket, masks: &[BinaryMask]) -> Self {
        let objects = packet.objects.iter().zip(masks).map(|(object, mask)| ObjectRecord {
            track_id: object.track_id,
            confirmed: object.confirmed,
            label: packet.label(object.class),
            score: object.score,
            box_xyxy: object.box_xyxy,
            mask: CocoRle::encode(mask),
            mask_score: object.mask_score,
        });
        Record {
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
}
