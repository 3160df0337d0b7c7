//! Choices made when a pipeline is built.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ultramotion_tracking::assignment::MatcherMode;
use ultramotion_tracking::track::TrackerConfig;

/// Where stages hand over their tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// On the device: one program, one copy in, one copy out.
    #[default]
    Device,
    /// Through host memory after every stage: for comparison and debugging.
    Host,
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Residency::Device => "device",
            Residency::Host => "host",
        })
    }
}

impl FromStr for Residency {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "device" => Ok(Residency::Device),
            "host" => Ok(Residency::Host),
            other => Err(format!("unknown residency '{other}'; expected `device` or `host`")),
        }
    }
}

/// The modes a packet was computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Modes {
    /// Where stages hand over.
    pub residency: Residency,
    /// How detections and tracks are paired.
    pub matcher: MatcherMode,
    /// Number format of activations.
    pub precision: &'static str,
}

/// What a pipeline does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PipelineOptions {
    /// Most objects in a frame, K: bounds detections, prompts and masks.
    pub max_objects: usize,
    /// Least score of a detection, 0 to 1.
    pub score_threshold: f32,
    /// A detection that overlaps a better one by more than this IoU is the same structure; 1 keeps all.
    pub max_overlap_iou: f32,
    /// Where stages hand over.
    pub residency: Residency,
    /// How detections and tracks are paired.
    pub matcher: MatcherMode,
    /// Thresholds of tracking. Its solver follows `matcher`.
    pub tracker: TrackerConfig,
}

/// Most objects that a frame can be asked for.
pub const MAX_OBJECTS: usize = 64;

impl Default for PipelineOptions {
    fn default() -> Self {
        PipelineOptions {
            max_objects: 8,
            score_threshold: 0.5,
            max_overlap_iou: 0.7,
            residency: Residency::Device,
            matcher: MatcherMode::Exact,
            tracker: TrackerConfig::default(),
        }
    }
}
