//! Errors as Python's exceptions: the type says whose fault it is, the text is the error's one sentence.
//!
//! | exception | fault |
//! |---|---|
//! | `ValueError` | a value: a shape, a number out of its range, a setting that is not known, a file of another kind |
//! | `TypeError` | something of another type than what is taken |
//! | `FileNotFoundError`, `PermissionError`, `OSError` | a file that cannot be read |
//! | `RuntimeError` | the device, or an object that is closed or of another process |

use std::io;

use pyo3::exceptions::{
    PyFileNotFoundError, PyOSError, PyPermissionError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use ultramotion::settings::BuildError;
use ultramotion::source::SourceError;
use ultramotion::{SessionError, SettingsError};
use ultramotion_media::MediaError;
use ultramotion_models::checkpoint::CheckpointError;
use ultramotion_models::detector::DetectError;
use ultramotion_models::segmenter::PredictorError;
use ultramotion_models::zoo::ZooError;
use ultramotion_pipeline::{DeviceChoiceError, PipelineError};
use ultramotion_tracking::{DeviceMatcherError, TrackingError};

/// An error that becomes an exception. A trait of our own: neither side's types are.
pub(crate) trait Raise {
    /// The exception.
    fn raise(self) -> PyErr;
}

/// `?` for results of the libraries.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Raise> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(Raise::raise)
    }
}

/// A wrong value.
pub(crate) fn value_error(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}

/// A wrong type.
pub(crate) fn type_error(text: impl Into<String>) -> PyErr {
    PyTypeError::new_err(text.into())
}

fn os_error(kind: io::ErrorKind, text: String) -> PyErr {
    match kind {
        io::ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
        io::ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
        _ => PyOSError::new_err(text),
    }
}

impl Raise for MediaError {
    fn raise(self) -> PyErr {
        match &self {
            MediaError::Io { source, .. } => os_error(source.kind(), self.to_string()),
            _ => value_error(self.to_string()),
        }
    }
}

impl Raise for CheckpointError {
    fn raise(self) -> PyErr {
        match &self {
            CheckpointError::Read { source, .. } | CheckpointError::Write { source, .. } => {
                os_error(source.kind(), self.to_string())
            }
            _ => value_error(self.to_string()),
        }
    }
}

impl Raise for ZooError {
    fn raise(self) -> PyErr {
        match self {
            ZooError::Checkpoint(error) => error.raise(),
            // No name of a model has these: a path is meant.
            ZooError::Unknown { ref name, .. } if name.contains(['/', '\\', '.']) => {
                PyFileNotFoundError::new_err(self.to_string())
            }
            error => value_error(error.to_string()),
        }
    }
}

impl Raise for PipelineError {
    fn raise(self) -> PyErr {
        match self {
            PipelineError::Device(error) => error.raise(),
            error => value_error(error.to_string()),
        }
    }
}

impl Raise for PredictorError {
    fn raise(self) -> PyErr {
        match self {
            PredictorError::Device(error) => error.raise(),
            PredictorError::NoImage => PyRuntimeError::new_err(self.to_string()),
            error => value_error(error.to_string()),
        }
    }
}

impl Raise for DetectError {
    fn raise(self) -> PyErr {
        match self {
            DetectError::Device(error) => error.raise(),
            error => value_error(error.to_string()),
        }
    }
}

impl Raise for DeviceMatcherError {
    fn raise(self) -> PyErr {
        match self {
            DeviceMatcherError::Batch(error) => error.raise(),
            DeviceMatcherError::Graph(error) => error.raise(),
            DeviceMatcherError::Device(error) => error.raise(),
        }
    }
}

impl Raise for BuildError {
    fn raise(self) -> PyErr {
        match self {
            BuildError::Device(error) => PyRuntimeError::new_err(error.to_string()),
            BuildError::Model(error) => error.raise(),
            BuildError::Pipeline(error) => error.raise(),
        }
    }
}

impl Raise for SettingsError {
    fn raise(self) -> PyErr {
        match self {
            SettingsError::Read(error) => error.raise(),
            error => value_error(error.to_string()),
        }
    }
}

impl Raise for SourceError {
    fn raise(self) -> PyErr {
        match self {
            SourceError::Media(error) => error.raise(),
            error @ SourceError::Link(_) => PyOSError::new_err(error.to_string()),
            error => value_error(error.to_string()),
        }
    }
}

impl Raise for SessionError {
    fn raise(self) -> PyErr {
        match self {
            SessionError::Source(error) => error.raise(),
            SessionError::Build(error) => error.raise(),
            SessionError::Unreadable(error) => error.raise(),
            error @ SessionError::Feed(_) => PyOSError::new_err(error.to_string()),
            SessionError::Pipeline { ref error, .. } if matches!(**error, PipelineError::Device(_)) => {
                PyRuntimeError::new_err(self.to_string())
            }
            error @ (SessionError::Pipeline { .. }
            | SessionError::OutsideFrame { .. }
            | SessionError::NoPicture(_)) => value_error(error.to_string()),
        }
    }
}

macro_rules! raise_as {
    ($($exception:ident: $($error:ty),*;)*) => {$($(
        impl Raise for $error {
            fn raise(self) -> PyErr {
                $exception::new_err(self.to_string())
            }
        }
    )*)*};
}

raise_as! {
    PyValueError: DeviceChoiceError, TrackingError, ultramotion_engine::graph::GraphError;
    PyRuntimeError: ultramotion_engine::DeviceError, ultramotion_engine::CudaError;
}
