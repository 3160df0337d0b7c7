//! `audit`: what `python -m ultramotion.validate_gpu_pipeline_kpi` prints.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ultramotion::audit;

use crate::errors::OrRaise;
use crate::exclusive::unpanicked;
use crate::settings;

/// Device mode against host mode: latency, memory and transfers of the same frames, and whether a frame in device mode
/// keeps to one copy in, one copy out, one wait and no allocation.
///
/// frames
///     Frames in each mode, 2 at least.
/// device, threads, precision, **settings
///     As for Orchestrator; 'residency' is what is compared.
///
/// Returns the report as JSON, as a table, and whether the budget was kept.
///
/// Raises ValueError for settings, FileNotFoundError and its kin for models, RuntimeError for the device.
#[pyfunction(name = "audit")]
#[pyo3(signature = (*, frames=30, device="auto", threads=0, precision=None, **settings))]
pub(crate) fn run(
    py: Python<'_>,
    frames: u64,
    device: &str,
    threads: usize,
    precision: Option<&str>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<(String, String, bool)> {
    let choice = settings::device_choice(device, threads, precision)?;
    let settings = settings::settings(None, settings)?;
    let report = py.detach(|| unpanicked(|| audit::audit(&settings, &choice, frames, None).or_raise()))?;
    let json = serde_json::to_string(&report).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok((json, report.to_string(), report.pass))
}
