//! Named tensors on the host: what every reader returns and every model builder takes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use indexmap::IndexMap;

use super::error::{CheckpointError, Mismatch, Misshaped};

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// IEEE 754 binary64.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::BF16 => "bf16",
            Dtype::F64 => "f64",
            Dtype::I64 => "i64",
            Dtype::I32 => "i32",
            Dtype::I16 => "i16",
            Dtype::I8 => "i8",
            Dtype::U8 => "u8",
            Dtype::Bool => "bool",
        })
    }
}

/// Number of elements of a shape, or `None` where it overflows.
pub(super) fn checked_numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// One tensor: row-major, little-endian, shared. Cloning copies no data.
#[derive(Clone)]
pub struct WeightTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl WeightTensor {
    /// A tensor of its own bytes; `name` is for the error.
    ///
    /// # Errors
    /// [`CheckpointError::WrongLength`] if `bytes` does not fill `shape` exactly.
    pub fn from_bytes(
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> Result<Self, CheckpointError> {
        let range = 0..bytes.len();
        Self::from_shared(dtype, shape, Arc::new(bytes), range.clone()).ok_or_else(|| {
            CheckpointError::WrongLength {
                tensor: name.to_owned(),
                shape: shape.to_vec(),
                dtype,
                expected: checked_numel(shape)
                    .and_then(|n| n.checked_mul(dtype.size()))
                    .unwrap_or(usize::MAX),
                found: range.len(),
            }
        })
    }

    /// An f32 tensor; `name` is for the error.
    ///
    /// # Errors
    /// [`CheckpointError::WrongLength`] if `values` does not fill `shape` exactly.
    pub fn from_f32(name: &str, shape: &[usize], values: &[f32]) -> Result<Self, CheckpointError> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_bytes(name, Dtype::F32, shape, bytes)
    }

    /// A tensor that is a part of a shared buffer; `None` unless `range` is in it and fills the shape exactly.
    pub(super) fn from_shared(
        dtype: Dtype,
        shape: &[usize],
        buffer: Arc<Vec<u8>>,
        range: Range<usize>,
    ) -> Option<Self> {
        let bytes = checked_numel(shape)?.checked_mul(dtype.size())?;
        let inside = range.start <= range.end && range.end <= buffer.len();
        (inside && bytes == range.len()).then(|| Self { dtype, shape: shape.to_vec(), buffer, range })
    }

    /// Element type as stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.range.len() / self.dtype.size()
    }

    /// The elements as stored: row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }

    /// The elements as f32, row-major. f16, bf16 and small integers are exact; f64 and large integers are rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        let bytes = self.bytes();
        fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
        }
        match self.dtype {
            Dtype::F32 => each(bytes, f32::from_le_bytes),
            Dtype::F16 => each(bytes, |c| f16::from_le_bytes(c).to_f32()),
            Dtype::BF16 => each(bytes, |c| bf16::from_le_bytes(c).to_f32()),
            Dtype::F64 => each(bytes, |c| f64::from_le_bytes(c) as f32),
            Dtype::I64 => each(bytes, |c| i64::from_le_bytes(c) as f32),
            Dtype::I32 => each(bytes, |c| i32::from_le_bytes(c) as f32),
            Dtype::I16 => each(bytes, |c| f32::from(i16::from_le_bytes(c))),
            Dtype::I8 => each(bytes, |c| f32::from(i8::from_le_bytes(c))),
            Dtype::U8 => each(bytes, |[c]| f32::from(c)),
            Dtype::Bool => each(bytes, |[c]| f32::from(u8::from(c != 0))),
        }
    }

    /// The tensors of the same type and row shape one after the other along the first dimension, as one.
    pub(super) fn concatenated(parts: &[&WeightTensor]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        let row = first.shape.get(1..)?;
        let fits = rest.iter().all(|p| p.dtype == first.dtype && p.shape.get(1..) == Some(row));
        if !fits {
            return None;
        }
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().map(|p| p.shape[0]).sum();
        let bytes: Vec<u8> = parts.iter().flat_map(|p| p.bytes()).copied().collect();
        let range = 0..bytes.len();
        Self::from_shared(first.dtype, &shape, Arc::new(bytes), range)
    }

    /// How many elements are NaN or infinite, and the index of the first.
    fn not_finite(&self) -> Option<(usize, usize)> {
        let bytes = self.bytes();
        fn bad<const N: usize>(bytes: &[u8], finite: impl Fn([u8; N]) -> bool) -> Option<(usize, usize)> {
            let mut at =
                bytes.as_chunks::<N>().0.iter().enumerate().filter(|(_, c)| !finite(**c)).map(|(i, _)| i);
            let first = at.next()?;
            Some((1 + at.count(), first))
        }
        match self.dtype {
            Dtype::F32 => bad(bytes, |c| f32::from_le_bytes(c).is_finite()),
            Dtype::F16 => bad(bytes, |c| f16::from_le_bytes(c).is_finite()),
            Dtype::BF16 => bad(bytes, |c| bf16::from_le_bytes(c).is_finite()),
            // Used as f32, so what overflows f32 is as bad as an infinity.
            Dtype::F64 => bad(bytes, |c| (f64::from_le_bytes(c) as f32).is_finite()),
            _ => None,
        }
    }
}

impl fmt::Debug for WeightTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightTensor({} {:?})", self.dtype, self.shape)
    }
}

/// An ordered map from parameter name to tensor, in the order of the file. Cloning copies no data.
///
/// Names are those of the official checkpoints, whichever format the weights came in.
///
/// ```
/// use ultramotion_models::checkpoint::{WeightTensor, Weights};
///
/// let mut weights = Weights::new("an example");
/// weights.insert("scale", WeightTensor::from_f32("scale", &[2], &[1.0, 2.0])?);
/// let expected = [("scale".to_owned(), vec![3]), ("bias".to_owned(), vec![3])];
/// let error = weights.verify(&expected, |_| false).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "an example does not fit the model's 2 tensors: 1 missing (`bias`), 1 mis-shaped (`scale` [2] instead of \
///      [3]); is it a checkpoint of this model, size and number of classes?"
/// );
/// # Ok::<(), ultramotion_models::checkpoint::CheckpointError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Weights {
    origin: String,
    tensors: IndexMap<String, WeightTensor>,
}

impl Weights {
    /// No tensors yet. `origin` opens error messages: a file in backticks, or words such as "the filled weights".
    pub fn new(origin: impl Into<String>) -> Self {
        Self { origin: origin.into(), tensors: IndexMap::new() }
    }

    /// Where the weights came from, as error messages say it.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Adds a tensor; returns the one that had the name before.
    pub fn insert(&mut self, name: impl Into<String>, tensor: WeightTensor) -> Option<WeightTensor> {
        self.tensors.insert(name.into(), tensor)
    }

    /// Takes a tensor out; the order of the others stays.
    pub fn remove(&mut self, name: &str) -> Option<WeightTensor> {
        self.tensors.shift_remove(name)
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&WeightTensor> {
        self.tensors.get(name)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names and tensors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &WeightTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of elements in all floating-point tensors.
    pub fn parameter_count(&self) -> usize {
        self.tensors.values().filter(|t| t.dtype.is_float()).map(WeightTensor::numel).sum()
    }

    /// A tensor as f32, with its shape. Call [`Weights::verify`] first: after it no name of the model is missing.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`].
    pub fn f32(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>), CheckpointError> {
        let tensor = self.get(name).ok_or_else(|| CheckpointError::MissingTensor {
            origin: self.origin.clone(),
            name: name.to_owned(),
        })?;
        Ok((tensor.to_f32(), tensor.shape.clone()))
    }

    /// Compares names and shapes with a model's list, and reports every difference in one error.
    ///
    /// A name for which `ignore` says true may be missing, extra or of another shape: buffers that do not matter
    /// at inference (`num_batches_tracked`), or that depend on the input size (`decoder.anchors`).
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`].
    pub fn verify(
        &self,
        expected: &[(String, Vec<usize>)],
        ignore: impl Fn(&str) -> bool,
    ) -> Result<(), CheckpointError> {
        let mut mismatch =
            Mismatch { origin: self.origin.clone(), expected_count: expected.len(), ..Mismatch::default() };
        for (name, shape) in expected.iter().filter(|(name, _)| !ignore(name)) {
            match self.get(name) {
                None => mismatch.missing.push(name.clone()),
                Some(tensor) if tensor.shape != *shape => mismatch.misshaped.push(Misshaped {
                    name: name.clone(),
                    expected: shape.clone(),
                    found: tensor.shape.clone(),
                }),
                Some(_) => {}
            }
        }
        let known: std::collections::HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        mismatch.unexpected =
            self.tensors.keys().filter(|n| !known.contains(n.as_str()) && !ignore(n)).cloned().collect();
        if mismatch.is_empty() { Ok(()) } else { Err(CheckpointError::Mismatch(Box::new(mismatch))) }
    }

    /// Checks that no floating-point weight is NaN, infinite, or too large for f32.
    ///
    /// Names for which `ignore` says true are passed over: the official `decoder.anchors` holds infinities where an
    /// anchor is too near the image's edge.
    ///
    /// # Errors
    /// [`CheckpointError::NotFinite`] for the first tensor that has one.
    pub fn check_finite(&self, ignore: impl Fn(&str) -> bool) -> Result<(), CheckpointError> {
        for (name, tensor) in self.iter().filter(|(name, _)| !ignore(name)) {
            if let Some((count, first)) = tensor.not_finite() {
                return Err(CheckpointError::NotFinite {
                    origin: self.origin.clone(),
                    tensor: name.to_owned(),
                    count,
                    first,
                });
            }
        }
        Ok(())
    }
}
