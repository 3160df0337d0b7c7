//! `.safetensors` files: a JSON header with names, types, shapes and offsets, then the bytes.
//!
//! Reading uses the `safetensors` crate, which checks that the offsets cover the file exactly. Writing is done here,
//! because that crate writes the metadata in random order and the same model should give the same file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use safetensors::{Dtype as StDtype, SafeTensorError, SafeTensors};
use serde_json::{Map, Value, json};

use super::error::{CheckpointError, quoted};
use super::weights::{Dtype, WeightTensor, Weights};

/// Reads a file's tensors, in the order of their bytes, and its metadata.
pub(super) fn read(
    path: &Path,
    file: Arc<Vec<u8>>,
) -> Result<(Weights, BTreeMap<String, String>), CheckpointError> {
    let (header_len, header) = SafeTensors::read_metadata(&file).map_err(|e| read_error(path, &file, e))?;
    let damaged = |detail| CheckpointError::Damaged { path: path.into(), detail };
    let mut weights = Weights::new(format!("`{}`", path.display()));
    let data_start = 8 + header_len;
    for name in header.offset_keys() {
        let shown = || quoted(name.as_bytes());
        let info =
            header.info(&name).ok_or_else(|| damaged(format!("tensor `{}` is not described", shown())))?;
        let dtype = from_safetensors(info.dtype).ok_or_else(|| CheckpointError::Unsupported {
            path: path.into(),
            what: format!("one with a tensor of {} (`{}`)", info.dtype, shown()),
            advice: "save its tensors as f32, f16 or bf16",
        })?;
        let (start, end) = info.data_offsets;
        let tensor =
            WeightTensor::from_shared(dtype, &info.shape, file.clone(), data_start + start..data_start + end)
                .ok_or_else(|| damaged(format!("tensor `{}` does not fill its shape", shown())))?;
        weights.insert(name, tensor);
    }
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((weights, metadata))
}

fn read_error(path: &Path, file: &[u8], error: SafeTensorError) -> CheckpointError {
    let path = path.to_owned();
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            CheckpointError::Truncated {
                path,
                detail: format!("it ends inside its header ({} bytes are there)", file.len()),
            }
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let detail =
                format!("its header describes another number of bytes than the {} there", file.len());
            CheckpointError::Truncated { path, detail }
        }
        // Messages of the JSON parser may quote the file.
        other => CheckpointError::Damaged { path, detail: quoted(other.to_string().as_bytes()) },
    }
}

fn from_safetensors(dtype: StDtype) -> Option<Dtype> {
    Some(match dtype {
        StDtype::F32 => Dtype::F32,
        StDtype::F16 => Dtype::F16,
        StDtype::BF16 => Dtype::BF16,
        StDtype::F64 => Dtype::F64,
        StDtype::I64 => Dtype::I64,
        StDtype::I32 => Dtype::I32,
        StDtype::I16 => Dtype::I16,
        StDtype::I8 => Dtype::I8,
        StDtype::U8 => Dtype::U8,
        StDtype::BOOL => Dtype::Bool,
        _ => return None,
    })
}

fn safetensors_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::BF16 => "BF16",
        Dtype::F64 => "F64",
        Dtype::I64 => "I64",
        Dtype::I32 => "I32",
        Dtype::I16 => "I16",
        Dtype::I8 => "I8",
        Dtype::U8 => "U8",
        Dtype::Bool => "BOOL",
    }
}

/// How floating-point weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredPrecision {
    /// All as f32.
    F32,
    /// As f16, except tensors that would lose more than 1e-3 (see [`save`](super::save)), which stay f32.
    F16,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Size of the file.
    pub bytes: u64,
    /// Tensors that stayed f32 although f16 was asked for.
    pub kept_f32: Vec<String>,
}

/// Writes tensors and metadata. The file appears whole or not at all.
pub(super) fn write(
    path: &Path,
    weights: &Weights,
    metadata: &BTreeMap<String, String>,
    precision: StoredPrecision,
) -> Result<Written, CheckpointError> {
    let write_error = |source| CheckpointError::Write { path: path.to_owned(), source };
    let mut kept_f32 = Vec::new();
    let mut stored: Vec<(&str, Dtype, &[usize], Vec<u8>)> = Vec::with_capacity(weights.len());
    for (name, tensor) in weights.iter() {
        let (dtype, bytes) = encoded(tensor, precision);
        if tensor.dtype().is_float() && precision == StoredPrecision::F16 && dtype == Dtype::F32 {
            kept_f32.push(name.to_owned());
        }
        stored.push((name, dtype, tensor.shape(), bytes));
    }
    // Widest elements first keeps all aligned; the sort is stable, so the order within a type is the model's.
    stored.sort_by_key(|(_, dtype, ..)| std::cmp::Reverse(dtype.size()));

    let mut header = Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut end = 0;
    for (name, dtype, shape, bytes) in &stored {
        let start = end;
        end += bytes.len();
        let info = json!({"dtype": safetensors_name(*dtype), "shape": shape, "data_offsets": [start, end]});
        header.insert((*name).to_owned(), info);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = temporary_in(folder).map_err(write_error)?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(write_error);
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    for (.., bytes) in &stored {
        write(bytes)?;
    }
    file.persist(path).map_err(|e| write_error(e.error))?;
    Ok(Written { bytes: (8 + header.len() + end) as u64, kept_f32 })
}

/// A temporary file that, once renamed, has the permissions of any new file rather than those of a secret.
fn temporary_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    let permissions = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(permissions);
    builder.tempfile_in(folder)
}

/// The bytes of a tensor as stored. Integers stay as they are.
fn encoded(tensor: &WeightTensor, precision: StoredPrecision) -> (Dtype, Vec<u8>) {
    if !tensor.dtype().is_float() || (tensor.dtype() == Dtype::F16 && precision == StoredPrecision::F16) {
        return (tensor.dtype(), tensor.bytes().to_vec());
    }
    let values = tensor.to_f32();
    if precision == StoredPrecision::F16 && fits_f16(&values, tensor.shape()) {
        (Dtype::F16, values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect())
    } else {
        (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
}

/// Whether rounding to f16 loses at most 1e-3, relative, in every element of a vector and in every row's L2 norm of
/// anything else: a batch norm's variances each scale a channel of their own, a filter acts as a whole.
fn fits_f16(values: &[f32], shape: &[usize]) -> bool {
    const TOLERANCE: f64 = 1e-3;
    let rows = if shape.len() >= 2 { shape[0].max(1) } else { values.len().max(1) };
    values.chunks((values.len() / rows).max(1)).all(|row| {
        let (mut lost, mut whole) = (0.0f64, 0.0f64);
        for &v in row {
            let (exact, rounded) = (f64::from(v), f16::from_f32(v).to_f64());
            lost += (exact - rounded).powi(2);
            whole += exact * exact;
        }
        // False for NaN, which an overflow to infinity gives.
        lost <= TOLERANCE * TOLERANCE * whole
    })
}
