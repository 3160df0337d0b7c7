//! A file of reference outputs.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use ultramotion_engine::tensor::HostTensor;

use super::ParityError;
use crate::checkpoint::{self, Mismatch, Weights};
use crate::parameters::ParameterSpec;

/// Fixtures are a few megabytes.
const MAX_BYTES: u64 = 1 << 30;

/// Reference outputs and what they are of.
pub(super) struct Fixture {
    path: PathBuf,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, HostTensor>,
}

impl Fixture {
    pub fn read(path: &Path) -> Result<Self, ParityError> {
        let error = |reason: String| ParityError::Fixture { path: path.into(), reason };
        let about = std::fs::metadata(path).map_err(|e| error(format!("{e}; check the path")))?;
        if !about.is_file() || about.len() > MAX_BYTES {
            return Err(error("it is not a file of reference outputs".into()));
        }
        let bytes = std::fs::read(path).map_err(|e| error(e.to_string()))?;
        let not_safetensors = |e| error(format!("it is not a whole .safetensors file ({e})"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(not_safetensors)?;
        let file = SafeTensors::deserialize(&bytes).map_err(not_safetensors)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let data = view.data();
            let value = match view.dtype() {
                Dtype::F32 => {
                    let values = data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
                    HostTensor::f32(view.shape(), values.collect::<Vec<_>>())
                }
                Dtype::U8 => HostTensor::u8(view.shape(), data),
                other => return Err(error(format!("its tensor '{name}' is {other:?}, not F32 or U8"))),
            };
            tensors.insert(name, value);
        }
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Fixture { path: path.into(), metadata, tensors })
    }

    /// File name.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(OsStr::to_str).unwrap_or("fixture")
    }

    pub fn error(&self, reason: impl Into<String>) -> ParityError {
        ParityError::Fixture { path: self.path.clone(), reason: reason.into() }
    }

    pub fn weights_error(&self, mismatch: Box<Mismatch>) -> ParityError {
        ParityError::Weights { path: self.path.clone(), mismatch }
    }

    pub fn metadata(&self, key: &str) -> Result<&str, ParityError> {
        let value = self.metadata.get(key).map(String::as_str);
        value.ok_or_else(|| self.error(format!("its metadata has no '{key}'")))
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T, ParityError> {
        let text = self.metadata(key)?;
        text.parse().map_err(|_| self.error(format!("its metadata has '{key}' = '{text}', not a number")))
    }

    pub fn f32(&self, name: &str) -> Result<&[f32], ParityError> {
        let values = self.tensors.get(name).and_then(HostTensor::as_f32);
        values.ok_or_else(|| self.error(format!("it has no F32 tensor '{name}'")))
    }

    /// The grey image as a frame `[H, W, 1]`.
    pub fn frame(&self) -> Result<HostTensor, ParityError> {
        let image = self.tensors.get("image");
        match image.map(|i| (i.shape().dims(), i.data())) {
            Some((&[h, w], ultramotion_engine::tensor::HostData::U8(pixels))) => {
                Ok(HostTensor::u8([h, w, 1], pixels.clone()))
            }
            _ => Err(self.error("it has no U8 tensor 'image' of shape [H, W]")),
        }
    }

    /// The fixture's weights, or those of another salt. `constructed` says which parameters keep the values that the
    /// network's constructor gives them.
    pub fn weights(
        &self,
        specs: &[ParameterSpec],
        other_salt: Option<&str>,
        constructed: impl Fn(&str) -> bool,
    ) -> Result<Weights, ParityError> {
        let salt = other_salt.or(self.metadata.get("salt").map(String::as_str));
        if let Some(salt) = salt {
            let filled = specs.iter().filter(|s| !constructed(&s.name));
            let keys: Vec<_> = filled.map(|s| (s.name.clone(), s.shape.clone())).collect();
            let gain = if self.metadata.contains_key("gain") { self.number("gain")? } else { 1.0 };
            return Ok(checkpoint::filled(&keys, salt, gain, |_| None)?);
        }
        let file = Path::new(self.metadata("checkpoint")?);
        let beside = file.file_name() == Some(file.as_os_str());
        if !beside {
            return Err(self.error(format!("its checkpoint '{}' is not a file beside it", file.display())));
        }
        Ok(checkpoint::load(self.path.with_file_name(file))?.weights)
    }
}
