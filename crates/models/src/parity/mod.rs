//! Is this implementation the official one? Runs a network on a device and compares it with reference outputs.
//!
//! In: a fixture, which names a network and holds an image, samples of intermediate tensors and the outputs that the
//! official code computed in float64. Its weights are filled by a rule ([`filled`](crate::checkpoint::filled)) or
//! come from a checkpoint beside it. Out: a [`ParityReport`], one line a tensor.
//!
//! ```no_run
//! use ultramotion_engine::Device;
//! use ultramotion_models::parity::{self, ParityOptions};
//!
//! let report = parity::check("dfine_n.safetensors".as_ref(), &Device::cpu(0), &ParityOptions::default())?;
//! assert!(report.pass, "{report}");
//! # Ok::<(), parity::ParityError>(())
//! ```

mod compare;
mod detector;
mod fixture;
mod segmenter;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;
use ultramotion_engine::graph::GraphError;
use ultramotion_engine::{Device, DeviceError};

use crate::checkpoint::{CheckpointError, Mismatch};
use crate::zoo::{Architecture, ConfigError, Kind};
use fixture::Fixture;

/// How to compare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParityOptions {
    /// Fill the weights with this salt instead, and compare with the float64 interpreter instead of the fixture's
    /// outputs, which belong to the fixture's own weights. Shows that nothing is tuned to the fixture. A segmenter is
    /// compared on a part of the image, which the interpreter gets through in seconds.
    pub salt: Option<String>,
}

/// One compared tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Tensor: `backbone.0`, `encoder.0`, `pred_scores`, `pred_boxes`, `image_embedding`, `box.low_res_masks`…
    pub name: String,
    /// Features, and masks in f32: `‖a − b‖ / ‖b‖`. Masks in f16: 1 − IoU of what is inside. Scores: largest difference between the sorted scores. Boxes: largest L1
    /// distance to the nearest box of the other set, in shares of the image.
    pub relative_error: f64,
    /// What is still accepted.
    pub tolerance: f64,
    /// Whether the error is within the tolerance.
    pub pass: bool,
}

impl Check {
    fn new(name: impl Into<String>, relative_error: f64, tolerance: f64) -> Self {
        // Not a number is not within any tolerance.
        Check { name: name.into(), relative_error, tolerance, pass: relative_error <= tolerance }
    }
}

/// What is accepted, by the number format of a device's features.
#[derive(Debug, Clone, Copy)]
struct Tolerances {
    feature: f64,
    score: f64,
    /// L1 distance in shares of the image.
    boxes: f64,
    mask: Mask,
}

/// How masks are compared.
#[derive(Debug, Clone, Copy)]
enum Mask {
    /// Their logits, by relative error.
    Logits(f64),
    /// Where they are positive, by 1 − IoU.
    Overlap(f64),
}

impl Tolerances {
    fn of(device: &Device) -> Tolerances {
        match device.precision() {
            "f16" => Tolerances { feature: 1e-2, score: 1e-2, boxes: 2e-2, mask: Mask::Overlap(1e-2) },
            _ => Tolerances { feature: 1e-4, score: 1e-4, boxes: 1e-3, mask: Mask::Logits(1e-3) },
        }
    }
}

/// How one fixture compares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParityReport {
    /// File name.
    pub fixture: String,
    /// Device.
    pub device: String,
    /// Number format of the activations.
    pub precision: String,
    /// The compared tensors, in the order of computation.
    pub checks: Vec<Check>,
    /// Whether all are within their tolerances.
    pub pass: bool,
}

impl fmt::Display for ParityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {} in {}", self.fixture, self.device, self.precision)?;
        for check in &self.checks {
            let verdict = if check.pass { "ok" } else { "FAIL" };
            let Check { name, relative_error, tolerance, .. } = check;
            writeln!(f, "  {name:<26} {relative_error:9.2e} of {tolerance:.0e}  {verdict}")?;
        }
        Ok(())
    }
}

/// Why a fixture could not be compared.
#[derive(Debug, Error)]
pub enum ParityError {
    /// The fixture is not readable, or not a fixture.
    #[error("cannot use the fixture `{path}`: {reason}")]
    Fixture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint that the fixture names.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The weights are not those of the network.
    #[error("the fixture `{path}`: {mismatch}")]
    Weights {
        /// The fixture.
        path: PathBuf,
        /// How they differ.
        mismatch: Box<Mismatch>,
    },
    /// The network cannot be built as the fixture asks.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Runs the fixture's network on a device and compares.
///
/// # Errors
/// [`ParityError`] if it could not be compared; a comparison that fails is a report with `pass` false.
pub fn check(path: &Path, device: &Device, options: &ParityOptions) -> Result<ParityReport, ParityError> {
    let fixture = Fixture::read(path)?;
    let model = fixture.metadata("model")?;
    let unknown = |_| fixture.error(format!("its model '{model}' is not one that is compared here"));
    let architecture: Architecture = model.parse().map_err(unknown)?;
    let checks = match architecture.kind() {
        Kind::Detector => detector::check(architecture, &fixture, device, options)?,
        Kind::Segmenter => segmenter::check(architecture, &fixture, device, options)?,
    };
    Ok(ParityReport {
        fixture: fixture.name().to_owned(),
        device: device.name().to_owned(),
        precision: device.precision().to_owned(),
        pass: checks.iter().all(|c| c.pass),
        checks,
    })
}
