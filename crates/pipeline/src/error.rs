//! What can go wrong.

use thiserror::Error;
use ultramotion_engine::DeviceError;
use ultramotion_engine::graph::GraphError;
use ultramotion_tracking::TrackingError;
use ultramotion_types::FrameError;

/// Why a pipeline cannot be built, or a frame not be processed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PipelineError {
    /// The frame is at fault; the next one may be processed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An option out of its range.
    #[error("{option} is {value}, but it must be {range}")]
    Option {
        /// Name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is taken.
        range: String,
    },
    /// A tracker setting out of its range.
    #[error(transparent)]
    Tracking(#[from] TrackingError),
    /// Models that do not fit together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
