//! Ops that belong to one domain (assignment, track update, packet assembly): declared by the crate that owns
//! them, with every form they have in one place.

use std::fmt::Debug;

use super::TensorType;
use crate::launch::{Launch, Operand};
use crate::tensor::DType;
use crate::values::Values;

/// An operation defined outside the engine.
///
/// Inputs and outputs are contiguous. A row-counted input arrives at its full bound; an op that cares takes the
/// count as an input of its own (`[1]`, i32).
pub trait CustomOp: Debug + Send + Sync + 'static {
    /// Name in errors, plans and profiles.
    fn name(&self) -> &str;

    /// Types of the results for inputs of these types, or one sentence that says what does not fit.
    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String>;

    /// Scratch buffers the CPU form needs, as element type and number of elements. Their content is undefined.
    fn scratch(&self, _inputs: &[TensorType]) -> Vec<(DType, usize)> {
        Vec::new()
    }

    /// The definition: naive, in float64, the judge of the other forms. Outputs arrive zeroed.
    fn reference(&self, inputs: &[Values], outputs: &mut [Values]);

    /// The CPU form. Must not allocate, must not panic on any input values.
    fn cpu(&self, call: &mut CpuCall<'_>);

    /// Scratch buffers the CUDA form needs; unless said otherwise, those of the CPU form.
    fn cuda_scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        self.scratch(inputs)
    }

    /// The CUDA form: kernels in the order in which they run, or `None` where there is none. They must read counts on the
    /// device, and must not do harm on any input values.
    fn cuda(&self, _call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        None
    }
}

/// One argument of a CPU form.
#[derive(Debug)]
pub enum Slice<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Integers.
    I32(&'a [i32]),
    /// Bytes.
    U8(&'a [u8]),
}

/// One result or scratch buffer of a CPU form.
#[derive(Debug)]
pub enum SliceMut<'a> {
    /// Floats.
    F32(&'a mut [f32]),
    /// Integers.
    I32(&'a mut [i32]),
    /// Bytes.
    U8(&'a mut [u8]),
}

impl<'a> Slice<'a> {
    /// The floats. Panics when the op declared another type: an error of the op, not of its data.
    pub fn f32(&self) -> &'a [f32] {
        match self {
            Slice::F32(v) => v,
            other => panic!("custom op reads f32 from {other:?}"),
        }
    }
    /// The integers. Panics as [`Slice::f32`].
    pub fn i32(&self) -> &'a [i32] {
        match self {
            Slice::I32(v) => v,
            other => panic!("custom op reads i32 from {other:?}"),
        }
    }
    /// The bytes. Panics as [`Slice::f32`].
    pub fn u8(&self) -> &'a [u8] {
        match self {
            Slice::U8(v) => v,
            other => panic!("custom op reads u8 from {other:?}"),
        }
    }
}

impl SliceMut<'_> {
    /// The floats. Panics as [`Slice::f32`].
    pub fn f32(&mut self) -> &mut [f32] {
        match self {
            SliceMut::F32(v) => v,
            other => panic!("custom op writes f32 to {other:?}"),
        }
    }
    /// The integers. Panics as [`Slice::f32`].
    pub fn i32(&mut self) -> &mut [i32] {
        match self {
            SliceMut::I32(v) => v,
            other => panic!("custom op writes i32 to {other:?}"),
        }
    }
    /// The bytes. Panics as [`Slice::f32`].
    pub fn u8(&mut self) -> &mut [u8] {
        match self {
            SliceMut::U8(v) => v,
            other => panic!("custom op writes u8 to {other:?}"),
        }
    }
}

/// Everything a CPU form may touch.
pub struct CpuCall<'a> {
    /// Arguments, in order.
    pub inputs: &'a [Slice<'a>],
    /// Results, in order. Content on entry is undefined.
    pub outputs: &'a mut [SliceMut<'a>],
    /// Buffers asked for by [`CustomOp::scratch`].
    pub scratch: &'a mut [SliceMut<'a>],
    /// Runs `body(i)` for every `i` below a number, on the device's threads.
    pub parallel: &'a ParallelFor<'a>,
}

/// What the CUDA form of a custom op is bound to. All operands are contiguous.
#[derive(Debug)]
pub struct CudaCall<'a> {
    /// Types of the arguments.
    pub input_types: &'a [TensorType],
    /// Arguments, in order.
    pub inputs: &'a [Operand],
    /// Results, in order. Their content is undefined before the op runs.
    pub outputs: &'a [Operand],
    /// Buffers asked for by [`CustomOp::cuda_scratch`].
    pub scratch: &'a [Operand],
}

/// Runs a body for every index below a number, on several threads.
pub type ParallelFor<'a> = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + 'a;
