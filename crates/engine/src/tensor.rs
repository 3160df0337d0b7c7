//! What a tensor is: element type, static shape, and, for host-side data, its values.

use std::fmt;
use std::sync::Arc;

/// Element type of a tensor as the graph sees it. A backend may store `F32` more narrowly (f16 on CUDA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// Real numbers.
    F32,
    /// Indices, labels, identities and counts.
    I32,
    /// Raw image samples and packed bits.
    U8,
}

impl DType {
    /// Bytes of one element in host memory.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::U8 => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::U8 => "u8",
        })
    }
}

/// A Rust type whose values are elements of a tensor in host memory.
pub trait Element: bytemuck::Pod {
    /// Their type as the graph sees it.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

/// Extents of a tensor, outermost first, last dimension contiguous. Feature maps are `[N, H, W, C]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// Extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }
    /// Number of elements; 1 for a scalar (`[]`).
    pub fn numel(&self) -> usize {
        self.0.iter().product()
    }
    /// Extent of the last dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }
    /// Number of rows when every dimension but the last is flattened.
    pub fn rows(&self) -> usize {
        match self.0.split_last() {
            Some((_, leading)) => leading.iter().product(),
            None => 1,
        }
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape(dims.to_vec())
    }
}
impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Shape(dims)
    }
}
impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape(dims.to_vec())
    }
}
impl std::ops::Index<usize> for Shape {
    type Output = usize;
    fn index(&self, axis: usize) -> &usize {
        &self.0[axis]
    }
}
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Values of a tensor in host memory. Cloning shares them.
#[derive(Debug, Clone, PartialEq)]
pub enum HostData {
    /// 32-bit floats.
    F32(Arc<[f32]>),
    /// 32-bit integers.
    I32(Arc<[i32]>),
    /// Bytes.
    U8(Arc<[u8]>),
}

/// A tensor in host memory: constants of a graph, first values of its states, inputs of the reference interpreter.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    shape: Shape,
    data: HostData,
}

impl HostTensor {
    /// Wraps values with a shape.
    ///
    /// # Panics
    /// If the number of values is not the number of elements of `shape`.
    pub fn new(shape: impl Into<Shape>, data: HostData) -> Self {
        let shape = shape.into();
        let len = match &data {
            HostData::F32(v) => v.len(),
            HostData::I32(v) => v.len(),
            HostData::U8(v) => v.len(),
        };
        assert_eq!(len, shape.numel(), "{len} values do not fill a tensor of shape {shape}");
        HostTensor { shape, data }
    }
    /// A float tensor. Panics as [`HostTensor::new`].
    pub fn f32(shape: impl Into<Shape>, values: impl Into<Arc<[f32]>>) -> Self {
        Self::new(shape, HostData::F32(values.into()))
    }
    /// An integer tensor. Panics as [`HostTensor::new`].
    pub fn i32(shape: impl Into<Shape>, values: impl Into<Arc<[i32]>>) -> Self {
        Self::new(shape, HostData::I32(values.into()))
    }
    /// A byte tensor. Panics as [`HostTensor::new`].
    pub fn u8(shape: impl Into<Shape>, values: impl Into<Arc<[u8]>>) -> Self {
        Self::new(shape, HostData::U8(values.into()))
    }
    /// A tensor of one element type filled with zeros.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let n = shape.numel();
        match dtype {
            DType::F32 => Self::f32(shape, vec![0.0; n]),
            DType::I32 => Self::i32(shape, vec![0; n]),
            DType::U8 => Self::u8(shape, vec![0; n]),
        }
    }
    /// A tensor from the bytes a device would send. Panics as [`HostTensor::new`].
    pub fn from_bytes(dtype: DType, shape: impl Into<Shape>, bytes: &[u8]) -> Self {
        match dtype {
            DType::F32 => Self::f32(shape, bytemuck::pod_collect_to_vec::<u8, f32>(bytes)),
            DType::I32 => Self::i32(shape, bytemuck::pod_collect_to_vec::<u8, i32>(bytes)),
            DType::U8 => Self::u8(shape, bytes),
        }
    }
    /// Extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self.data {
            HostData::F32(_) => DType::F32,
            HostData::I32(_) => DType::I32,
            HostData::U8(_) => DType::U8,
        }
    }
    /// Values, whatever their type.
    pub fn data(&self) -> &HostData {
        &self.data
    }
    /// Float values, or `None` for another type.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            HostData::F32(v) => Some(v),
            _ => None,
        }
    }
    /// Integer values, or `None` for another type.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            HostData::I32(v) => Some(v),
            _ => None,
        }
    }
    /// Little-endian bytes of the values as a device would receive them.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            HostData::F32(v) => bytemuck::cast_slice(v),
            HostData::I32(v) => bytemuck::cast_slice(v),
            HostData::U8(v) => v,
        }
    }
}
