//! The library for Python: the extension module `ultramotion._ultramotion` under the package in `python/`.
//!
//! A thin layer: arrays in and out without copies (`image`, `tensor`, `memory`), errors as exceptions
//! (`errors`), one call at a time without the interpreter's lock (`exclusive`). What is computed, and every setting,
//! is the libraries' own.

mod audit;
mod detector;
mod errors;
mod exclusive;
mod image;
mod matcher;
mod memory;
mod orchestrator;
mod packet;
mod predictor;
mod run;
mod settings;
mod shots;
mod tensor;

use pyo3::prelude::*;
use tracing_subscriber::EnvFilter;

#[pymodule]
fn _ultramotion(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // To standard error, as the command's log; not where the program that embeds the interpreter has one of its own.
    let filter = EnvFilter::try_from_env("ULTRAMOTION_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = log.with_target(false).try_init();
    module.add_class::<tensor::Tensor>()?;
    module.add_class::<matcher::HungarianMatcher>()?;
    module.add_class::<packet::ResultPacket>()?;
    module.add_class::<orchestrator::Orchestrator>()?;
    module.add_class::<predictor::SamPredictor>()?;
    module.add_class::<detector::Detector>()?;
    module.add_class::<run::Run>()?;
    module.add_function(wrap_pyfunction!(audit::run, module)?)?;
    module.add_function(wrap_pyfunction!(run::run, module)?)?;
    module.add_function(wrap_pyfunction!(memory::copied_bytes, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
