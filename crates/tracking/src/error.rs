//! What can go wrong in this crate: shapes that do not fit each other, and settings out of range. Values inside a
//! tensor (NaN boxes, infinite costs) are never an error: each algorithm documents what it makes of them.

use thiserror::Error;
use ultramotion_engine::DeviceError;
use ultramotion_engine::graph::GraphError;
use ultramotion_types::settings::SettingError;

/// A call that cannot be carried out. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TrackingError {
    /// A slice is shorter than the shape that was named for it.
    #[error("`{name}` has {got} values where {needed} are needed; pass a buffer of that size")]
    TooShort {
        /// The argument.
        name: &'static str,
        /// Values needed.
        needed: usize,
        /// Values there.
        got: usize,
    },
    /// A tensor of a batch item does not have the shape its neighbours ask for.
    #[error("batch item {item}: `{name}` has {got} values, which does not fit {expected}")]
    Shape {
        /// Index in the batch.
        item: usize,
        /// The tensor.
        name: &'static str,
        /// Values there.
        got: usize,
        /// What would fit.
        expected: String,
    },
    /// A target's label is not a class of the logits.
    #[error(
        "batch item {item}: target {target} has label {label}, but the logits have {num_classes} classes; labels start at 0"
    )]
    Label {
        /// Index in the batch.
        item: usize,
        /// Index of the target.
        target: usize,
        /// Its label.
        label: i32,
        /// Classes in the logits.
        num_classes: usize,
    },
    /// A setting is out of range.
    #[error("`{field}` is {value}, but {rule}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// A key of the tracker's settings is out of range.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Why a batch is not matched on a device.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DeviceMatcherError {
    /// The batch.
    #[error(transparent)]
    Batch(#[from] TrackingError),
    /// More than a program can be made for.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// `Ok` if `got` reaches `needed`.
pub(crate) fn check_len(name: &'static str, needed: usize, got: usize) -> Result<(), TrackingError> {
    if got < needed { Err(TrackingError::TooShort { name, needed, got }) } else { Ok(()) }
}
