//! The two blocks of a program's values that cross the border, on the host, and the typed ports that reach into them.
//!
//! A port is made where a graph is built and says the element type there, so a wrong type is an error of the graph; a
//! read or a write is then a slice of the block: nothing is looked up by name, cast or allocated.
//!
//! ```
//! use ultramotion_engine::graph::{Graph, UnaryOp};
//! use ultramotion_engine::{CompileOptions, Device, Program};
//!
//! let mut g = Graph::new("example");
//! let (x, x_port) = g.input_port::<f32>("x", [3])?;
//! let y = g.unary(UnaryOp::Relu, x)?;
//! let y_port = g.output_port::<f32>("y", y)?;
//! let mut program = Program::compile(g, &Device::cpu(1), &CompileOptions::default())?;
//!
//! let (mut input, mut output) = (program.input_block()?, program.output_block()?);
//! x_port.write(&mut input, &[-1.0, 0.0, 2.0]);
//! program.upload(&input)?;
//! let event = program.launch()?;
//! program.wait(event)?;
//! program.download(&mut output)?;
//! assert_eq!(y_port.read(&output), [0.0, 0.0, 2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use crate::compile::{ALIGNMENT, BlockEntry};
use crate::error::OutOfMemory;
use crate::graph::{Input, Output, Port};
use crate::tensor::Element;

/// What is uploaded before a run.
pub type InputBlock = Block<Input>;
/// What is downloaded after a run.
pub type OutputBlock = Block<Output>;

/// Host memory for all inputs, or all outputs, of a program. Starts as zeros; as a slice it is the bytes to transfer.
#[derive(Debug, Clone)]
pub struct Block<S> {
    lines: Vec<Line>,
    entries: Vec<BlockEntry>,
    side: PhantomData<S>,
}

/// Aligned as the plan aligns values.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Line([u8; ALIGNMENT]);

impl<S> Block<S> {
    /// `bytes` is a multiple of [`ALIGNMENT`], as the plan makes it.
    pub(crate) fn new(entries: &[BlockEntry], bytes: usize) -> Result<Self, OutOfMemory> {
        let (mut lines, count) = (Vec::new(), bytes.div_ceil(ALIGNMENT));
        lines.try_reserve_exact(count).map_err(|_| OutOfMemory { bytes })?;
        lines.resize(count, Line::zeroed());
        Ok(Block { lines, entries: entries.to_vec(), side: PhantomData })
    }
}

impl<S> Deref for Block<S> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }
}

impl<S> DerefMut for Block<S> {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

impl<T: Element, S> Port<T, S> {
    /// The value's elements, in the order of its shape.
    ///
    /// # Panics
    /// If the block is of a program that was not compiled from the port's graph, as far as its layout shows it.
    pub fn read(self, block: &Block<S>) -> &[T] {
        let entry = self.entry(block);
        bytemuck::cast_slice(&block[entry.offset..][..entry.bytes()])
    }

    /// The same, to be written. Panics as [`Port::read`].
    pub fn slice_mut(self, block: &mut Block<S>) -> &mut [T] {
        let entry = self.entry(block);
        let (offset, bytes) = (entry.offset, entry.bytes());
        bytemuck::cast_slice_mut(&mut block[offset..][..bytes])
    }

    /// Copies `values` in. Panics as [`Port::read`], and if they are not as many as the value has elements.
    pub fn write(self, block: &mut Block<S>, values: &[T]) {
        self.slice_mut(block).copy_from_slice(values);
    }

    fn entry(self, block: &Block<S>) -> &BlockEntry {
        let entry = block.entries.get(self.index).filter(|entry| entry.dtype == T::DTYPE);
        entry.unwrap_or_else(|| {
            panic!("port {} ({}) is of another program than the block", self.index, T::DTYPE)
        })
    }
}
