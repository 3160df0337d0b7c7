//! What `/api/state` says, as types; the field names are the JSON's.

use std::collections::BTreeMap;

use serde::Serialize;
use ultramotion_types::{Fault, Modes};

use crate::observe::{Ages, Latencies};

/// Everything that is known.
#[derive(Debug, Serialize)]
pub(crate) struct State {
    pub version: &'static str,
    /// Since the start.
    pub time_s: f64,
    /// One of the gateway's words.
    pub state: &'static str,
    pub state_since_s: f64,
    pub source: SourceView,
    pub rates: Rates,
    pub frames: Frames,
    pub latency_ms: Latencies,
    pub age_ms: Age,
    pub device: DeviceState,
    pub per_frame: PerFrame,
    /// Confirmed ones in the last frame.
    pub tracks: usize,
    pub fault: Option<Fault>,
    pub clients: Vec<Client>,
    pub viewers: usize,
    pub recording: Option<RecordingState>,
    pub prompts: PromptState,
    pub complaints: BTreeMap<&'static str, u64>,
}

/// Where frames come from.
#[derive(Debug, Serialize)]
pub(crate) struct SourceView {
    pub url: String,
    pub connected: bool,
    /// Width and height of the last frame, pixels.
    pub frame_size: Option<[usize; 2]>,
    pub last_frame_age_s: Option<f64>,
    pub reconnects: u64,
}

/// Of the last second.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rates {
    pub in_per_s: f64,
    pub out_per_s: f64,
    pub dropped_per_s: f64,
}

/// The books.
#[derive(Debug, Serialize)]
pub(crate) struct Frames {
    pub received: u64,
    pub answered: u64,
    pub in_flight: u64,
    pub dropped: BTreeMap<&'static str, u64>,
}

/// How old frames are when they are handed over.
#[derive(Debug, Serialize)]
pub(crate) struct Age {
    #[serde(flatten)]
    pub minute: Ages,
    /// Whether ages count from the source's own timestamps.
    pub clocks_agree: bool,
}

/// What computes. All but `memory_mb` is of the last frame.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DeviceState {
    pub name: Option<&'static str>,
    #[serde(flatten)]
    pub modes: Option<Modes>,
    pub fallback: Option<String>,
    /// Of the process.
    pub memory_mb: Option<f64>,
}

/// Copies, waits and allocations on the device.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct PerFrame {
    pub h2d: u64,
    pub d2h: u64,
    pub host_syncs: u64,
    pub allocations: u64,
}

/// Who gets results.
#[derive(Debug, Serialize)]
pub(crate) struct Client {
    pub address: String,
    pub header_version: u16,
    pub sent: u64,
    pub dropped: u64,
    pub waiting: usize,
    /// Names of the messages.
    pub receives: Vec<String>,
}

/// The recording.
#[derive(Debug, Serialize)]
pub(crate) struct RecordingState {
    pub folder: String,
    pub frames: u64,
    pub free_mb: u64,
    pub failed: bool,
}

/// What was pointed at.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PromptState {
    /// 0 where nothing can be.
    pub most: usize,
    pub followed: usize,
}
