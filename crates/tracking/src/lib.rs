//! Assignment and tracks: which detection belongs to which object.
//!
//! | room | what |
//! |---|---|
//! | [`assignment`] | what a pair costs, and the optimal or a greedy assignment; [`HungarianMatcher`](assignment::HungarianMatcher) for batches of a detector's outputs and targets |
//! | [`track`] | identities across frames: prediction, gating, births, deaths; VISIBLE, RELOCALIZING or LOST |
//! | [`ops`] | the same as device ops of an engine graph, with the tracks in state tensors |
//!
//! Everything works on plain slices with memory lent by the caller, allocates nothing on its way, has a fixed
//! capacity and gives the same answer everywhere.

pub mod assignment;
mod error;
pub mod ops;
pub mod track;

pub use error::TrackingError;
