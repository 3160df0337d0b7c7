//! What can go wrong.

use std::path::PathBuf;

use thiserror::Error;
use ultramotion::settings::BuildError;
use ultramotion_engine::CudaError;
use ultramotion_media::MediaError;
use ultramotion_models::detector::DetectError;
use ultramotion_models::segmenter::PredictorError;
use ultramotion_pipeline::PipelineError;

use crate::mask_file::MaskFileError;
use crate::pairs::PairsError;

/// Why there is no evaluation, or why it ended.
#[derive(Debug, Error)]
pub enum EvaluationError {
    /// `--classes` cannot be read.
    #[error("--classes: {0}")]
    Classes(String),
    /// `--spacing-mm` cannot be read.
    #[error("{0}")]
    Spacing(String),
    /// Masks whose values are no convention that is known.
    #[error("the masks hold {0}, which is no convention that is known; name the classes with --classes")]
    NoConvention(String),
    /// A class of the masks that the detector does not have.
    #[error(
        "the masks have the class '{class}', which the detector {detector} does not know; it knows {known}"
    )]
    UnknownClass {
        /// Of the masks.
        class: String,
        /// The detector.
        detector: String,
        /// Some of its classes.
        known: String,
    },
    /// A folder for pictures that holds something.
    #[error("--overlays {}: the folder is not empty; name a new one", .0.display())]
    GalleryNotEmpty(PathBuf),
    /// A mask with a value that means no class.
    #[error("the mask {} has the value {value}, which is none of {classes}; name its class with --classes", mask.display())]
    UnknownValue {
        /// The mask.
        mask: PathBuf,
        /// The value.
        value: String,
        /// The classes.
        classes: String,
    },
    /// An image file without an image.
    #[error("{} holds no frame", .0.display())]
    NoFrame(PathBuf),
    /// Something about one image.
    #[error("{}: {source}", image.display())]
    Image {
        /// The image.
        image: PathBuf,
        /// What.
        source: Box<EvaluationError>,
    },
    /// Images and masks that do not belong together.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// A mask that cannot be read.
    #[error(transparent)]
    Mask(#[from] MaskFileError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// No pipeline can be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The requested device cannot be had.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A frame cannot be processed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The segmenter refused.
    #[error(transparent)]
    Predict(#[from] PredictorError),
    /// The detector refused.
    #[error(transparent)]
    Detect(#[from] DetectError),
}

impl EvaluationError {
    /// Whether what was asked for is wrong, and not what was found.
    pub fn is_in_request(&self) -> bool {
        matches!(
            self,
            EvaluationError::Classes(_)
                | EvaluationError::Spacing(_)
                | EvaluationError::NoConvention(_)
                | EvaluationError::UnknownClass { .. }
                | EvaluationError::GalleryNotEmpty(_)
        )
    }
}
