//! Device memory of a program on the CPU, and the operands that kernels are bound to.
//!
//! The plan gives every buffer a place such that no two buffers that are alive at the same step overlap, and a step
//! writes nothing that it reads except where its kernel allows it. Operands rely on that.
#![allow(unsafe_code)]

use super::kernels::{AlignedVec, View, ViewMut};
use super::plan::Plan;
use crate::compile::{Home, Site};
use crate::graph::{Op, Slice, SliceMut, Tensor};
use crate::tensor::{DType, HostTensor};

/// The buffers of one program.
pub(super) struct Memory {
    arena: Block,
    pub(super) input: Block,
    pub(super) output: Block,
    /// Constants that kernels read as they are, by node; weights are packed and not kept here.
    constants: Vec<Option<HostTensor>>,
    states: Vec<*mut u8>,
}

// SAFETY: the pointers are to memory that this program owns or, for states, uses only while it holds their store.
unsafe impl Send for Memory {}

/// An aligned buffer that is only reached through operands and counted transfers.
pub(super) struct Block {
    memory: AlignedVec,
    base: *mut u8,
}

impl Block {
    fn new(bytes: usize) -> Self {
        let mut memory = AlignedVec::zeros(bytes.div_ceil(4));
        let base = memory.as_mut_ptr().cast();
        Block { memory, base }
    }
    fn len(&self) -> usize {
        self.memory.len() * 4
    }
    /// Copies into the block.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len(), "a transfer past the end of its block");
        // SAFETY: in bounds; `&mut self` of the program means that no kernel runs.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) }
    }
    /// Copies out of the block.
    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= self.len(), "a transfer past the end of its block");
        // SAFETY: in bounds; kernels run only inside a launch, which borrows the program mutably.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset), bytes.as_mut_ptr(), bytes.len()) }
    }
}

impl Memory {
    /// Allocates everything a plan needs. `states` are the addresses of its states.
    pub(super) fn new(plan: &Plan, states: Vec<*mut u8>) -> Self {
        Memory {
            arena: Block::new(plan.arena_bytes),
            input: Block::new(plan.input_bytes),
            output: Block::new(plan.output_bytes),
            constants: plan
                .graph
                .nodes()
                .iter()
                .map(|node| match &node.op {
                    Op::Constant(value) => Some(value.clone()),
                    _ => None,
                })
                .collect(),
            states,
        }
    }

    /// Forgets the constants that no operand was made of.
    pub(super) fn keep_constants(&mut self, used: &[bool]) {
        for (constant, used) in self.constants.iter_mut().zip(used) {
            if !used {
                *constant = None;
            }
        }
    }

    /// Bytes of arena, blocks and kept constants.
    pub(super) fn bytes(&self) -> usize {
        let constants: usize = self.constants.iter().flatten().map(|c| c.bytes().len()).sum();
        self.arena.len() + self.input.len() + self.output.len() + constants
    }

    fn address(&self, home: Home) -> (*mut u8, usize) {
        match home {
            Home::Arena(offset) => (self.arena.base.wrapping_add(offset), self.arena.len() - offset),
            Home::Input(offset) => (self.input.base.wrapping_add(offset), self.input.len() - offset),
            Home::Output(offset) => (self.output.base.wrapping_add(offset), self.output.len() - offset),
            Home::State(index) => (self.states[index], usize::MAX),
            Home::Constant(node) => {
                let value =
                    self.constants[node].as_ref().expect("constants are kept until kernels are bound");
                (value.bytes().as_ptr().cast_mut(), value.bytes().len())
            }
        }
    }

    /// An operand for a tensor of a plan.
    pub(super) fn operand(&self, plan: &Plan, tensor: Tensor) -> Operand {
        let ty = plan.graph.ty(tensor);
        let mut operand = self.operand_at(plan.site(tensor), ty.dtype, ty.shape.rows(), ty.shape.cols());
        operand.rows_per_entry =
            ty.rows.map(|_| ty.shape.rows() / ty.shape.dims().first().copied().unwrap_or(1).max(1));
        operand
    }

    /// An operand of a given size at a site.
    pub(super) fn operand_at(&self, site: Site, dtype: DType, rows: usize, cols: usize) -> Operand {
        let (base, available) = self.address(site.home);
        let reach = if rows * cols == 0 { 0 } else { (rows - 1) * site.pitch + cols };
        assert!(
            (site.offset + reach) * dtype.size() <= available,
            "the plan places {site:?} outside its home"
        );
        let ptr = base.wrapping_add(site.offset * dtype.size());
        Operand { ptr, dtype, rows, cols, pitch: site.pitch, rows_per_entry: None }
    }
}

/// A tensor that a kernel is bound to: an address that stays valid as long as its program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    ptr: *mut u8,
    dtype: DType,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) pitch: usize,
    /// Rows of one entry of the leading dimension, when only a counted number of entries is valid.
    rows_per_entry: Option<usize>,
}

// SAFETY: as for `Memory`.
unsafe impl Send for Operand {}
// SAFETY: an operand is an address and sizes; what is behind it is shared as the plan allows.
unsafe impl Sync for Operand {}

impl Operand {
    /// Rows to compute when `entries` of the leading dimension are valid.
    pub(super) fn valid_rows(&self, entries: Option<usize>) -> usize {
        match (self.rows_per_entry, entries) {
            (Some(per_entry), Some(entries)) => (per_entry * entries).min(self.rows),
            _ => self.rows,
        }
    }

    /// The valid rows, for reading.
    pub(super) fn view(&self, entries: Option<usize>) -> View<'_> {
        assert_eq!(self.dtype, DType::F32, "views hold floats");
        // SAFETY: in bounds as checked by `operand_at`; the plan keeps writers away (module documentation).
        unsafe { View::from_raw(self.ptr.cast(), self.valid_rows(entries), self.cols, self.pitch) }
    }

    /// The first `rows` rows, for reading: of an argument that is not counted beside one that is.
    pub(super) fn leading(&self, rows: usize) -> View<'_> {
        self.view(None).row_range(0, rows)
    }

    /// The valid rows, for writing.
    pub(super) fn view_mut(&self, entries: Option<usize>) -> ViewMut<'_> {
        assert_eq!(self.dtype, DType::F32, "views hold floats");
        // SAFETY: in bounds as checked by `operand_at`; the plan gives each output to one step (module documentation).
        unsafe { ViewMut::from_raw(self.ptr.cast(), self.valid_rows(entries), self.cols, self.pitch) }
    }

    /// Whether rows follow one another without gaps.
    pub(super) fn is_contiguous(&self) -> bool {
        self.pitch == self.cols || self.rows <= 1
    }

    /// All elements, for reading.
    pub(super) fn slice(&self) -> Slice<'_> {
        assert!(self.is_contiguous(), "slices are of contiguous operands");
        let n = self.rows * self.cols;
        // SAFETY: in bounds as checked by `operand_at`, aligned to the element; the plan keeps writers away.
        unsafe {
            match self.dtype {
                DType::F32 => Slice::F32(std::slice::from_raw_parts(self.ptr.cast(), n)),
                DType::I32 => Slice::I32(std::slice::from_raw_parts(self.ptr.cast(), n)),
                DType::U8 => Slice::U8(std::slice::from_raw_parts(self.ptr, n)),
            }
        }
    }

    /// All elements, for writing.
    pub(super) fn slice_mut(&self) -> SliceMut<'_> {
        assert!(self.is_contiguous(), "slices are of contiguous operands");
        let n = self.rows * self.cols;
        // SAFETY: as for `slice`; the plan gives each output to one step.
        unsafe {
            match self.dtype {
                DType::F32 => SliceMut::F32(std::slice::from_raw_parts_mut(self.ptr.cast(), n)),
                DType::I32 => SliceMut::I32(std::slice::from_raw_parts_mut(self.ptr.cast(), n)),
                DType::U8 => SliceMut::U8(std::slice::from_raw_parts_mut(self.ptr, n)),
            }
        }
    }

    /// The same rows without a row count: all of them.
    pub(super) fn all_rows(&self) -> Operand {
        Operand { rows_per_entry: None, ..*self }
    }

    /// The rows `start..start + rows` as an operand of their own, never row-counted.
    pub(super) fn row_range(&self, start: usize, rows: usize) -> Operand {
        assert!(start + rows <= self.rows, "rows {start}+{rows} of {}", self.rows);
        let ptr = self.ptr.wrapping_add(start * self.pitch * self.dtype.size());
        Operand { ptr, rows, rows_per_entry: None, ..*self }
    }

    /// The columns `start..start + cols` of every row.
    pub(super) fn columns(&self, start: usize, cols: usize) -> Operand {
        assert!(start + cols <= self.cols, "columns {start}+{cols} of {}", self.cols);
        Operand { ptr: self.ptr.wrapping_add(start * self.dtype.size()), cols, ..*self }
    }

    /// The same elements as rows of another length. Only for contiguous operands.
    pub(super) fn with_cols(&self, cols: usize) -> Operand {
        assert!(self.is_contiguous(), "only contiguous operands change their row length");
        let rows = (self.rows * self.cols).checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, self.rows * self.cols, "whole rows");
        Operand { rows, cols, pitch: cols, rows_per_entry: None, ..*self }
    }

    /// Copies the rows of another operand of the same type and row length, whatever the gaps.
    pub(super) fn copy_rows_from(&self, from: &Operand) {
        assert_eq!(
            (self.dtype, self.rows, self.cols),
            (from.dtype, from.rows, from.cols),
            "copies are of equal sizes"
        );
        let (size, bytes) = (self.dtype.size(), self.cols * self.dtype.size());
        for row in 0..self.rows {
            // SAFETY: both in bounds as checked by `operand_at`; the plan never makes a tensor overlap its copy.
            unsafe {
                let source = from.ptr.add(row * from.pitch * size);
                std::ptr::copy_nonoverlapping(source, self.ptr.add(row * self.pitch * size), bytes);
            }
        }
    }
}
