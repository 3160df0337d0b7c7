//! Assignment and tracks: which detection belongs to which object.
//!
//! | room | what |
//! |---|---|
//! | [`assignment`] | what a pair costs, and the optimal or a greedy assignment; [`HungarianMatcher`](assignment::HungarianMatcher) for batches of a detector's outputs and targets |
//! | [`track`] | identities across frames: prediction, gating, births, deaths; VISIBLE, RELOCALIZING or LOST |
//! | [`follow`] | what somebody pointed at, followed by its own outline |
//! | [`quality`] | how well an object shows: edge, contrast, continuity, stability, likeness |
//! | [`ops`] | the same as device ops of an engine graph, with the tracks in state tensors |
//!
//! Everything works on plain slices with memory lent by the caller, allocates nothing on its way, has a fixed
//! capacity and gives the same answer everywhere.
//!
//! ```
//! use ultramotion_tracking::track::{Detections, Tracker, TrackerConfig};
//!
//! let mut tracker = Tracker::new(TrackerConfig::default(), 4, 8)?;
//! let found = Detections { boxes_cxcywh: &[0.5, 0.5, 0.1, 0.1], scores: &[0.9], classes: &[0], count: 1 };
//! assert_eq!(tracker.update(&found, 0.0)?.track_ids, [1]);
//! assert_eq!(tracker.update(&found, 0.04)?.track_ids, [1], "the same structure");
//! # Ok::<(), ultramotion_tracking::TrackingError>(())
//! ```

pub mod assignment;
mod error;
pub mod follow;
pub mod ops;
pub mod quality;
pub mod track;

pub use error::{DeviceMatcherError, TrackingError};
