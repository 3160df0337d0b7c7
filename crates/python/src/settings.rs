//! Keywords → settings: every key of the configuration file by its name, tables as dictionaries; and the device.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};
use ultramotion::{DeviceChoice, Settings};
use ultramotion_engine::Precision;

use crate::errors::{OrRaise, type_error, value_error};

/// The defaults, over which the file wins, over which keywords win.
///
/// # Errors
/// `ValueError` for a key that is not known or a value out of its range, `TypeError` for what no key takes, `OSError` and
/// its kin for a file that cannot be read.
pub(crate) fn settings(file: Option<PathBuf>, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Settings> {
    let options = keywords.map_or_else(|| Ok(toml::Table::new()), table)?;
    Settings::load(file.as_deref(), options).or_raise()
}

/// A device by name, as `--device`, `--threads` and `--precision` take it.
pub(crate) fn device_choice(device: &str, threads: usize, precision: Option<&str>) -> PyResult<DeviceChoice> {
    let precision = precision
        .map(|precision| match precision {
            "f32" => Ok(Precision::F32),
            "f16" => Ok(Precision::F16),
            other => Err(value_error(format!("precision '{other}' is not known; f32 and f16 are"))),
        })
        .transpose()?;
    DeviceChoice::new(device.parse().or_raise()?, threads, precision).or_raise()
}

fn table(keywords: &Bound<'_, PyDict>) -> PyResult<toml::Table> {
    let mut table = toml::Table::new();
    for (key, value) in keywords {
        let key: String =
            key.extract().map_err(|_| type_error(format!("a setting's name is a string, not {key}")))?;
        // None stands for the default everywhere in Python.
        if !value.is_none() {
            let value = toml_value(&key, &value)?;
            table.insert(key, value);
        }
    }
    Ok(table)
}

fn toml_value(key: &str, value: &Bound<'_, PyAny>) -> PyResult<toml::Value> {
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(toml::Value::Boolean(flag.is_true()));
    }
    if value.cast::<PyInt>().is_ok() {
        let number =
            value.extract().map_err(|_| value_error(format!("{key} is {value}: too large a number")))?;
        return Ok(toml::Value::Integer(number));
    }
    if value.cast::<PyFloat>().is_ok() {
        return Ok(toml::Value::Float(value.extract()?));
    }
    if value.cast::<PyString>().is_ok() {
        return Ok(toml::Value::String(value.extract()?));
    }
    if let Ok(inner) = value.cast::<PyDict>() {
        return Ok(toml::Value::Table(table(inner)?));
    }
    if let Ok(path) = value.extract::<PathBuf>() {
        let text =
            path.to_str().ok_or_else(|| value_error(format!("{key}: the path {value} is not text")))?;
        return Ok(toml::Value::String(text.to_owned()));
    }
    // NumPy's numbers are Python's by these two.
    if value.hasattr("__index__")? {
        return toml_value(key, &value.call_method0("__index__")?);
    }
    if value.hasattr("__float__")? {
        return toml_value(key, &value.call_method0("__float__")?);
    }
    if let Ok(items) = value.try_iter() {
        let items = items.map(|item| toml_value(key, &item?)).collect::<PyResult<Vec<_>>>()?;
        return Ok(toml::Value::Array(items));
    }
    let kind = value.get_type().name()?;
    Err(type_error(format!(
        "{key} cannot be of type {kind}: a setting is a number, a string, a bool, a list or a dict"
    )))
}
