//! The networks as graphs: D-FINE finds structures, MobileSAM outlines them.
//!
//! In: a checkpoint. Out: graphs for the engine with the checkpoint's weights in them, and the plain APIs on top.

pub mod checkpoint;
pub mod dfine;
pub mod mobile_sam;
pub mod parameters;
pub mod parity;
pub mod zoo;
