//! Values in the reference's precision: what the interpreter and the reference forms of custom ops compute with.

use crate::tensor::{DType, HostData, HostTensor, Shape};

/// Values of a tensor in the interpreter: floats in float64.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// Extents.
    pub shape: Shape,
    pub(crate) data: Data,
}

/// The values themselves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    F64(Vec<f64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
}

impl Values {
    /// Floats; the number of values must fill the shape.
    pub fn f64(shape: impl Into<Shape>, values: Vec<f64>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.numel(), values.len(), "values do not fill {shape}");
        Values { shape, data: Data::F64(values) }
    }
    /// Integers; the number of values must fill the shape.
    pub fn i32(shape: impl Into<Shape>, values: Vec<i32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.numel(), values.len(), "values do not fill {shape}");
        Values { shape, data: Data::I32(values) }
    }
    /// Bytes; the number of values must fill the shape.
    pub fn u8(shape: impl Into<Shape>, values: Vec<u8>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.numel(), values.len(), "values do not fill {shape}");
        Values { shape, data: Data::U8(values) }
    }
    /// Zeros of a graph's element type.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Self {
        Values::from(&HostTensor::zeros(dtype, shape))
    }
    /// The floats. Panics for another type: a mistake of the op that asks.
    pub fn as_f64(&self) -> &[f64] {
        match &self.data {
            Data::F64(v) => v,
            _ => panic!("{} holds no floats", self.shape),
        }
    }
    /// The integers. Panics as [`Values::as_f64`].
    pub fn as_i32(&self) -> &[i32] {
        match &self.data {
            Data::I32(v) => v,
            _ => panic!("{} holds no integers", self.shape),
        }
    }
    /// The bytes. Panics as [`Values::as_f64`].
    pub fn as_u8(&self) -> &[u8] {
        match &self.data {
            Data::U8(v) => v,
            _ => panic!("{} holds no bytes", self.shape),
        }
    }
    /// The floats, to change. Panics as [`Values::as_f64`].
    pub fn f64_mut(&mut self) -> &mut [f64] {
        match &mut self.data {
            Data::F64(v) => v,
            _ => panic!("{} holds no floats", self.shape),
        }
    }
    /// The integers, to change. Panics as [`Values::as_f64`].
    pub fn i32_mut(&mut self) -> &mut [i32] {
        match &mut self.data {
            Data::I32(v) => v,
            _ => panic!("{} holds no integers", self.shape),
        }
    }
    /// The bytes, to change. Panics as [`Values::as_f64`].
    pub fn u8_mut(&mut self) -> &mut [u8] {
        match &mut self.data {
            Data::U8(v) => v,
            _ => panic!("{} holds no bytes", self.shape),
        }
    }
    /// As a host tensor, floats rounded to f32.
    pub fn to_host(&self) -> HostTensor {
        let shape = self.shape.clone();
        match &self.data {
            Data::F64(v) => HostTensor::f32(shape, v.iter().map(|&x| x as f32).collect::<Vec<_>>()),
            Data::I32(v) => HostTensor::i32(shape, v.clone()),
            Data::U8(v) => HostTensor::u8(shape, v.clone()),
        }
    }
    fn select<T: Copy>(source: &[T], indices: impl Iterator<Item = Option<usize>>, zero: T) -> Vec<T> {
        indices.map(|i| i.map_or(zero, |i| source[i])).collect()
    }
    /// New values by flat index into these; `None` gives zero.
    pub(crate) fn rearranged(&self, shape: Shape, indices: impl Iterator<Item = Option<usize>>) -> Values {
        let data = match &self.data {
            Data::F64(v) => Data::F64(Self::select(v, indices, 0.0)),
            Data::I32(v) => Data::I32(Self::select(v, indices, 0)),
            Data::U8(v) => Data::U8(Self::select(v, indices, 0)),
        };
        Values { shape, data }
    }
}

impl From<&HostTensor> for Values {
    fn from(tensor: &HostTensor) -> Self {
        let data = match tensor.data() {
            HostData::F32(v) => Data::F64(v.iter().map(|&x| f64::from(x)).collect()),
            HostData::I32(v) => Data::I32(v.to_vec()),
            HostData::U8(v) => Data::U8(v.to_vec()),
        };
        Values { shape: tensor.shape().clone(), data }
    }
}
