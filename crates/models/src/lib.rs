//! The networks as graphs: D-FINE finds structures, MobileSAM outlines them.
//!
//! In: a checkpoint. Out: graphs for the engine with the checkpoint's weights in them, and the plain APIs on top.
//!
//! | room | what |
//! |---|---|
//! | [`zoo`] | models by name or file: where to start |
//! | [`detector`], [`segmenter`] | what a network of either kind is to its users; the segmenter by itself ([`SamPredictor`](segmenter::SamPredictor)) |
//! | [`dfine`], [`mobile_sam`] | the networks |
//! | [`checkpoint`] | files of PyTorch, Hugging Face and our own |
//! | [`parameters`] | how a network asks for its weights |
//! | [`parity`] | comparison with the official implementations |
//!
//! ```
//! use ultramotion_models::zoo::{Detector, Segmenter};
//!
//! // By name or path; these two are untrained, for timing.
//! let detector = Detector::open("dfine_n")?.with_input_hw([320, 320])?;
//! let segmenter = Segmenter::open("mobile_sam")?.with_input_size(512)?;
//! assert_eq!((detector.labels().len(), segmenter.network().input_hw()), (80, [512, 512]));
//! # Ok::<(), ultramotion_models::zoo::ZooError>(())
//! ```

pub mod checkpoint;
pub mod detector;
pub mod dfine;
pub mod mobile_sam;
pub mod parameters;
pub mod parity;
mod registry;
pub mod segmenter;
pub mod zoo;
