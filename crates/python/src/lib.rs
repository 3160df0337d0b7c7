//! The library for Python: the extension module `ultramotion._ultramotion` under the package in `python/`.
//!
//! A thin layer: arrays in and out without copies ([`image`], [`tensor`], [`memory`]), errors as exceptions
//! ([`errors`]), one call at a time without the interpreter's lock ([`exclusive`]). What is computed, and every setting,
//! is the libraries' own.

mod errors;
mod exclusive;
mod image;
mod memory;
mod tensor;

use pyo3::prelude::*;

#[pymodule]
fn _ultramotion(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<tensor::Tensor>()?;
    module.add_function(wrap_pyfunction!(memory::copied_bytes, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
