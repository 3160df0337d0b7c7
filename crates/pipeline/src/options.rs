//! Choices made when a pipeline is built.

use ultramotion_tracking::follow::FollowConfig;
use ultramotion_tracking::track::TrackerConfig;
use ultramotion_types::{MatcherMode, Residency};

/// What a pipeline does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PipelineOptions {
    /// Most objects in a frame, K: bounds detections, prompts and masks.
    pub max_objects: usize,
    /// Most objects that somebody may point at, P; 0 for none.
    pub max_prompts: usize,
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
    /// Thresholds of what was pointed at.
    pub follow: FollowConfig,
}

/// Most objects that a frame can be asked for.
pub const MAX_OBJECTS: usize = 64;
/// Most objects that can be pointed at.
pub const MAX_PROMPTS: usize = 8;

impl Default for PipelineOptions {
    fn default() -> Self {
        PipelineOptions {
            max_objects: 8,
            max_prompts: 0,
            score_threshold: 0.5,
            max_overlap_iou: 0.7,
            residency: Residency::Device,
            matcher: MatcherMode::Exact,
            tracker: TrackerConfig::default(),
            follow: FollowConfig::default(),
        }
    }
}
