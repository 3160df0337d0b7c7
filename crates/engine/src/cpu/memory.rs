//! Device memory of a program on the CPU, and the operands that kernels are bound to.
//!
//! The plan gives every buffer a place such that no two buffers that are alive at the same step overlap. What would be
//! unsound if it did not is checked here, once, when a program is built: that each operand lies inside its home, when it is
//! made, and that a step writes nothing that it reads or writes elsewhere, when it is bound.
#![allow(unsafe_code)]

use std::cell::{OnceCell, RefCell};
use std::ops::Deref;

use super::kernels::{AlignedVec, View, ViewMut, reach};
use super::plan::Plan;
use crate::compile::{Home, Site};
use crate::error::OutOfMemory;
use crate::graph::{Op, Slice, SliceMut, Tensor};
use crate::tensor::{DType, HostTensor};

/// The buffers of one program.
pub(super) struct Memory {
    arena: AlignedVec<u8>,
    pub(super) input: Buffer,
    pub(super) output: Buffer,
    /// Constants that kernels read as they are, by node; weights are packed and not kept here.
    constants: Vec<OnceCell<HostTensor>>,
    /// Addresses and bytes.
    states: Vec<(*mut u8, usize)>,
    /// What the step that is being bound was given, and whether it writes it.
    bound: RefCell<Vec<(Operand, bool)>>,
}

// SAFETY: the pointers are to states, which this program uses only while it holds their store.
unsafe impl Send for Memory {}

/// A buffer that is only reached through operands and counted transfers.
pub(super) struct Buffer(AlignedVec<u8>);

impl Buffer {
    /// The address of some bytes.
    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(bytes <= self.0.bytes().saturating_sub(offset), "a transfer past the end of its block");
        self.0.base().wrapping_add(offset)
    }
    /// Copies into the block.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        // SAFETY: in bounds; `&mut self` of the program means that no kernel runs.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset, bytes.len()), bytes.len()) }
    }
    /// Copies out of the block.
    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) {
        // SAFETY: in bounds; kernels run only inside a launch, which borrows the program mutably.
        unsafe {
            std::ptr::copy_nonoverlapping(self.at(offset, bytes.len()), bytes.as_mut_ptr(), bytes.len())
        }
    }
}

impl Memory {
    /// Allocates everything a plan needs. `states` are the addresses and bytes of its states.
    pub(super) fn new(plan: &Plan, states: Vec<(*mut u8, usize)>) -> Result<Self, OutOfMemory> {
        Ok(Memory {
            arena: AlignedVec::try_zeros(plan.arena_bytes)?,
            input: Buffer(AlignedVec::try_zeros(plan.input_bytes)?),
            output: Buffer(AlignedVec::try_zeros(plan.output_bytes)?),
            constants: vec![OnceCell::new(); plan.graph.nodes().len()],
            states,
            bound: RefCell::default(),
        })
    }

    /// Ends the binding of a step. Panics if the plan has it write what it also reads, or writes twice.
    pub(super) fn end_step(&self) {
        let bound = self.bound.take();
        for (at, (output, _)) in bound.iter().enumerate().filter(|(_, (_, writes))| *writes) {
            for (_, (other, _)) in bound.iter().enumerate().filter(|(other, _)| *other != at) {
                assert!(!output.overlaps(other), "the plan has a step write {output:?} over {other:?}");
            }
        }
    }

    /// Bytes of arena, blocks and kept constants.
    pub(super) fn bytes(&self) -> usize {
        let constants: usize = self.constants.iter().filter_map(OnceCell::get).map(|c| c.bytes().len()).sum();
        self.arena.bytes() + self.input.0.bytes() + self.output.0.bytes() + constants
    }

    /// Where a home begins and how many bytes it has. A constant is kept from here on.
    fn home(&self, plan: &Plan, home: Home) -> (*mut u8, usize) {
        let part = |of: &AlignedVec<u8>, offset: usize| {
            (of.base().wrapping_add(offset), of.bytes().saturating_sub(offset))
        };
        match home {
            Home::Arena(offset) => part(&self.arena, offset),
            Home::Input(offset) => part(&self.input.0, offset),
            Home::Output(offset) => part(&self.output.0, offset),
            Home::State(index) => self.states[index],
            Home::Constant(node) => {
                let bytes = self.constants[node]
                    .get_or_init(|| match &plan.graph.nodes()[node].op {
                        Op::Constant(value) => value.clone(),
                        other => panic!("the plan takes {} for a constant", other.name()),
                    })
                    .bytes();
                (bytes.as_ptr().cast_mut(), bytes.len())
            }
        }
    }

    /// An operand for a tensor of a plan.
    ///
    /// # Safety
    /// The operand is used while this memory lives, by the step that it is bound to, in that step's turn.
    pub(super) unsafe fn operand(&self, plan: &Plan, tensor: Tensor) -> Operand {
        let operand = self.of_tensor(plan, tensor);
        self.bound.borrow_mut().push((operand, false));
        operand
    }

    fn of_tensor(&self, plan: &Plan, tensor: Tensor) -> Operand {
        let ty = plan.graph.ty(tensor);
        let mut operand = self.place(plan, plan.site(tensor), ty.dtype, ty.shape.rows(), ty.shape.cols());
        operand.rows_per_entry =
            ty.rows.map(|_| ty.shape.rows() / ty.shape.dims().first().copied().unwrap_or(1).max(1));
        operand
    }

    /// The output of a step, for a tensor of a plan.
    ///
    /// # Safety
    /// As for [`Memory::operand`]; the step has no other output for these elements; and in its turn nothing else
    /// reads or writes them, but inputs that its kernel's documentation allows to be the same memory.
    pub(super) unsafe fn output(&self, plan: &Plan, tensor: Tensor) -> Output {
        assert!(!matches!(plan.site(tensor).home, Home::Constant(_)), "the plan writes to a constant");
        self.bind_output(self.of_tensor(plan, tensor))
    }

    /// As [`Memory::output`], of a part of it: where it begins, and its rows and columns.
    ///
    /// # Safety
    /// As for [`Memory::output`].
    pub(super) unsafe fn output_part(
        &self,
        plan: &Plan,
        tensor: Tensor,
        [row, column]: [usize; 2],
        [rows, cols]: [usize; 2],
    ) -> Output {
        assert!(!matches!(plan.site(tensor).home, Home::Constant(_)), "the plan writes to a constant");
        self.bind_output(self.of_tensor(plan, tensor).row_range(row, rows).columns(column, cols))
    }

    fn bind_output(&self, operand: Operand) -> Output {
        self.bound.borrow_mut().push((operand, true));
        Output(operand)
    }

    /// As [`Memory::output`], at a site and without a row count.
    ///
    /// # Safety
    /// As for [`Memory::output`].
    pub(super) unsafe fn output_at(
        &self,
        plan: &Plan,
        site: Site,
        dtype: DType,
        rows: usize,
        cols: usize,
    ) -> Output {
        assert!(!matches!(site.home, Home::Constant(_)), "the plan writes to a constant");
        self.bind_output(self.place(plan, site, dtype, rows, cols))
    }

    fn place(&self, plan: &Plan, site: Site, dtype: DType, rows: usize, cols: usize) -> Operand {
        let (base, bytes) = self.home(plan, site.home);
        let end = site.offset.checked_add(reach::<f32>(rows, cols, site.pitch));
        let end = end.and_then(|end| end.checked_mul(dtype.size()));
        let ptr = base.wrapping_add(site.offset.wrapping_mul(dtype.size()));
        assert!(
            end.is_some_and(|end| end <= bytes) && ptr.addr().is_multiple_of(dtype.size()),
            "the plan places {site:?} outside its home"
        );
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
    pitch: usize,
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

    /// Whether there is a byte of both.
    fn overlaps(&self, other: &Operand) -> bool {
        let span = |operand: &Operand| {
            let [pitch, width] = [operand.pitch, operand.cols].map(|n| n * operand.dtype.size());
            (operand.ptr.addr(), pitch, width, operand.rows.saturating_sub(1) * pitch + width)
        };
        let ((a, pitch, a_width, a_bytes), (b, b_pitch, b_width, b_bytes)) = (span(self), span(other));
        if self.rows == 0 || other.rows == 0 || a + a_bytes <= b || b + b_bytes <= a {
            return false;
        }
        // Columns of one map: `b`'s begin so far from where `a`'s do, in a row or the next.
        let apart = (b as isize - a as isize).rem_euclid(pitch.max(1) as isize) as usize;
        pitch != b_pitch || apart < a_width || apart + b_width > pitch
    }

    /// The valid rows, for reading.
    pub(super) fn view(&self, entries: Option<usize>) -> View<'_> {
        assert_eq!(self.dtype, DType::F32, "views hold floats");
        // SAFETY: in bounds and aligned as checked by `place`; readable by the promise of `Memory::operand`.
        unsafe { View::from_raw(self.ptr.cast(), self.valid_rows(entries), self.cols, self.pitch) }
    }

    /// The first `rows` rows, for reading: of an argument that is not counted beside one that is.
    pub(super) fn leading(&self, rows: usize) -> View<'_> {
        self.view(None).row_range(0, rows)
    }

    /// All rows, for copying, whatever their type.
    pub(super) fn bytes(&self) -> View<'_, u8> {
        let size = self.dtype.size();
        // SAFETY: as for `view`.
        unsafe { View::from_raw(self.ptr, self.rows, self.cols * size, self.pitch * size) }
    }

    /// Whether rows follow one another without gaps.
    fn is_contiguous(&self) -> bool {
        self.pitch == self.cols || self.rows <= 1
    }

    /// The number of elements, of which slices are made.
    fn len(&self) -> usize {
        assert!(self.is_contiguous(), "slices are of contiguous operands");
        self.rows * self.cols
    }

    /// All elements, for reading.
    pub(super) fn slice(&self) -> Slice<'_> {
        let n = self.len();
        // SAFETY: as for `view`.
        unsafe {
            match self.dtype {
                DType::F32 => Slice::F32(std::slice::from_raw_parts(self.ptr.cast(), n)),
                DType::I32 => Slice::I32(std::slice::from_raw_parts(self.ptr.cast(), n)),
                DType::U8 => Slice::U8(std::slice::from_raw_parts(self.ptr, n)),
            }
        }
    }

    /// The rows `start..start + rows` as an operand of their own, never row-counted.
    pub(super) fn row_range(&self, start: usize, rows: usize) -> Operand {
        assert!(start <= self.rows && rows <= self.rows - start, "rows {start}+{rows} of {}", self.rows);
        let ptr = self.ptr.wrapping_add(start * self.pitch * self.dtype.size());
        Operand { ptr, rows, rows_per_entry: None, ..*self }
    }

    /// The columns `start..start + cols` of every row.
    pub(super) fn columns(&self, start: usize, cols: usize) -> Operand {
        assert!(start <= self.cols && cols <= self.cols - start, "columns {start}+{cols} of {}", self.cols);
        Operand { ptr: self.ptr.wrapping_add(start * self.dtype.size()), cols, ..*self }
    }

    /// The same elements as rows of another length. Only for contiguous operands.
    pub(super) fn with_cols(&self, cols: usize) -> Operand {
        let n = self.len();
        let rows = n.checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, n, "whole rows");
        Operand { rows, cols, pitch: cols, rows_per_entry: None, ..*self }
    }
}

/// What a step writes. There is one for each of its results.
#[derive(Debug)]
pub(super) struct Output(Operand);

impl Deref for Output {
    type Target = Operand;
    fn deref(&self) -> &Operand {
        &self.0
    }
}

impl Output {
    /// The valid rows, for writing.
    pub(super) fn view_mut(&mut self, entries: Option<usize>) -> ViewMut<'_> {
        assert_eq!(self.dtype, DType::F32, "views hold floats");
        // SAFETY: in bounds and aligned as checked by `place`; writable by the promise of `Memory::output`.
        unsafe { ViewMut::from_raw(self.ptr.cast(), self.valid_rows(entries), self.cols, self.pitch) }
    }

    /// All rows, for copying, whatever their type.
    pub(super) fn bytes_mut(&mut self) -> ViewMut<'_, u8> {
        let size = self.dtype.size();
        // SAFETY: as for `view_mut`.
        unsafe { ViewMut::from_raw(self.ptr, self.rows, self.cols * size, self.pitch * size) }
    }

    /// All elements, for writing.
    pub(super) fn slice_mut(&mut self) -> SliceMut<'_> {
        let n = self.len();
        // SAFETY: as for `view_mut`.
        unsafe {
            match self.dtype {
                DType::F32 => SliceMut::F32(std::slice::from_raw_parts_mut(self.ptr.cast(), n)),
                DType::I32 => SliceMut::I32(std::slice::from_raw_parts_mut(self.ptr.cast(), n)),
                DType::U8 => SliceMut::U8(std::slice::from_raw_parts_mut(self.ptr, n)),
            }
        }
    }

    /// The same elements as rows of another length. Only for contiguous outputs.
    pub(super) fn with_cols(self, cols: usize) -> Output {
        Output(self.0.with_cols(cols))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::plan::CpuTarget;
    use crate::graph::{Graph, UnaryOp};

    /// `y = exp(x) + 1` with a state of three numbers.
    fn plan() -> Plan {
        let mut graph = Graph::new("memory");
        let x = graph.input("x", DType::F32, [2, 3]).unwrap();
        let state = graph.state("state", HostTensor::f32([1, 3], vec![0.0; 3])).unwrap();
        let y = graph.unary(UnaryOp::Exp, x).unwrap();
        let y = graph.unary(UnaryOp::Affine(1.0, 1.0), y).unwrap();
        let one = graph.constant(HostTensor::i32([1], vec![1]));
        graph.output("y", y).unwrap();
        graph.output("kept", state).unwrap();
        graph.output("one", one).unwrap();
        Plan::new(graph, &CpuTarget)
    }

    fn output_at(home: Home, offset: usize, pitch: usize, rows: usize, cols: usize) -> Output {
        let plan = plan();
        let mut state = [0f32; 3];
        let memory = Memory::new(&plan, vec![(state.as_mut_ptr().cast(), size_of_val(&state))]).unwrap();
        // SAFETY: only made, never used.
        unsafe { memory.output_at(&plan, Site { home, offset, pitch }, DType::F32, rows, cols) }
    }

    #[test]
    fn operands_and_outputs_share_what_the_plan_places_together() {
        let plan = plan();
        let mut memory = Memory::new(&plan, vec![(std::ptr::null_mut(), 12)]).unwrap();
        let values = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        memory.input.write(0, bytemuck::cast_slice(&values));
        let [exp, affine] = [0, 1].map(|i| {
            let nodes = plan.graph.nodes().iter();
            nodes.filter(|n| matches!(n.op, Op::Unary(_))).nth(i).expect("two of them")
        });
        // SAFETY: used here only, one at a time.
        let (x, mut middle, read, mut y) = unsafe {
            (
                memory.operand(&plan, exp.inputs[0]),
                memory.output(&plan, exp.outputs[0]),
                memory.operand(&plan, affine.inputs[0]),
                memory.output(&plan, affine.outputs[0]),
            )
        };
        assert_eq!(x.slice().f32(), values);
        assert_eq!(x.columns(1, 2).row_range(1, 1).view(None).row(0), [5.0, 6.0]);
        middle.bytes_mut().copy_from(x.bytes());
        middle.view_mut(None).row_mut(1)[2] = 7.0;
        assert_eq!(read.slice().f32(), [1.0, 2.0, 3.0, 4.0, 5.0, 7.0]);
        y.slice_mut().f32().copy_from_slice(read.slice().f32());
        let mut out = [0f32; 6];
        memory.output.read(0, bytemuck::cast_slice_mut(&mut out));
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 5.0, 7.0]);
    }

    /// Binds a step that writes one place of the output block and reads, or writes, another.
    fn step_of(one: (usize, usize, usize), other: (usize, usize, usize), reads: bool) {
        let plan = plan();
        let memory = Memory::new(&plan, vec![(std::ptr::null_mut(), 12)]).unwrap();
        let bind = |(offset, pitch, cols): (usize, usize, usize)| {
            // SAFETY: only made, never used.
            unsafe {
                memory.output_at(&plan, Site { home: Home::Output(0), offset, pitch }, DType::F32, 2, cols)
            }
        };
        bind(one);
        bind(other);
        memory.bound.borrow_mut()[1].1 = !reads;
        memory.end_step();
        assert!(memory.bound.borrow().is_empty());
    }

    #[test]
    fn columns_side_by_side_are_apart() {
        for reads in [true, false] {
            step_of((0, 3, 2), (2, 3, 1), reads);
            step_of((2, 3, 1), (0, 3, 2), reads);
            step_of((0, 2, 2), (4, 2, 2), reads);
        }
    }

    #[test]
    #[should_panic(expected = "has a step write")]
    fn a_step_does_not_write_what_it_reads() {
        step_of((0, 3, 2), (1, 3, 2), true);
    }

    #[test]
    #[should_panic(expected = "has a step write")]
    fn a_step_does_not_write_twice() {
        step_of((1, 3, 2), (0, 3, 2), false);
    }

    #[test]
    #[should_panic(expected = "has a step write")]
    fn rows_of_another_length_are_not_taken_for_columns() {
        step_of((0, 3, 2), (2, 2, 1), true);
    }

    #[test]
    fn the_whole_of_a_state_is_inside_it() {
        assert_eq!(output_at(Home::State(0), 0, 3, 1, 3).cols, 3);
        assert_eq!(output_at(Home::State(0), 2, 1, 1, 1).cols, 1);
    }

    #[test]
    #[should_panic(expected = "outside its home")]
    fn a_state_is_not_written_past_its_end() {
        output_at(Home::State(0), 0, 4, 1, 4);
    }

    #[test]
    #[should_panic(expected = "outside its home")]
    fn a_place_past_the_arena_is_refused() {
        output_at(Home::Arena(1 << 40), 0, 1, 1, 1);
    }

    #[test]
    #[should_panic(expected = "outside its home")]
    fn a_place_whose_end_has_no_number_is_refused() {
        output_at(Home::State(0), usize::MAX, 3, 1, 3);
    }

    #[test]
    #[should_panic(expected = "outside its home")]
    fn a_place_between_two_floats_is_refused() {
        output_at(Home::Output(2), 0, 1, 1, 1);
    }

    #[test]
    #[should_panic(expected = "writes to a constant")]
    fn a_constant_is_not_written() {
        let constant = plan().graph.nodes().iter().position(|n| matches!(n.op, Op::Constant(_))).unwrap();
        output_at(Home::Constant(constant), 0, 1, 1, 1);
    }

    #[test]
    #[should_panic(expected = "past the end of its block")]
    fn a_transfer_past_the_end_is_refused() {
        let plan = plan();
        let end = plan.input_bytes;
        Memory::new(&plan, Vec::new()).unwrap().input.write(end, &[0; 4]);
    }
}
