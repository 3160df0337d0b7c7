//! Ops of other crates.

use std::sync::Arc;

use super::{Lowered, Site};
use crate::compile::{Home, Site as Place};
use crate::cpu::memory::Operand;
use crate::graph::{CpuCall, CustomOp, Slice, SliceMut};

/// Longest list of inputs, outputs or scratch buffers.
const MAX_OPERANDS: usize = 24;

/// Binds the op's CPU form. The lists of slices live on the stack: a run allocates nothing.
pub(super) fn custom(site: &mut Site<'_>, op: Arc<dyn CustomOp>) -> Lowered {
    let inputs: Vec<Operand> = (0..site.node.inputs.len()).map(|i| site.input(i)).collect();
    let outputs: Vec<Operand> = site.node.outputs.clone().into_iter().map(|t| site.operand(t)).collect();
    let index =
        site.plan.graph.nodes().iter().position(|n| std::ptr::eq(n, site.node)).expect("a node of its plan");
    let scratch: Vec<Operand> = site.plan.scratch[index]
        .iter()
        .map(|&(dtype, n, offset)| {
            site.memory.operand_at(Place { home: Home::Arena(offset), offset: 0, pitch: n }, dtype, 1, n)
        })
        .collect();
    assert!(
        inputs.len() <= MAX_OPERANDS && outputs.len() <= MAX_OPERANDS && scratch.len() <= MAX_OPERANDS,
        "at most {MAX_OPERANDS} operands"
    );
    Lowered::new(op.name().to_owned(), move |call| {
        let input_slices: [Slice<'_>; MAX_OPERANDS] =
            std::array::from_fn(|i| inputs.get(i).map_or(Slice::U8(&[]), Operand::slice));
        let mut output_slices: [SliceMut<'_>; MAX_OPERANDS] =
            std::array::from_fn(|i| outputs.get(i).map_or(SliceMut::U8(&mut []), Operand::slice_mut));
        let mut scratch_slices: [SliceMut<'_>; MAX_OPERANDS] =
            std::array::from_fn(|i| scratch.get(i).map_or(SliceMut::U8(&mut []), Operand::slice_mut));
        let parallel = |n: usize, body: &(dyn Fn(usize) + Sync)| call.pool.parallel_for(n, body);
        op.cpu(&mut CpuCall {
            inputs: &input_slices[..inputs.len()],
            outputs: &mut output_slices[..outputs.len()],
            scratch: &mut scratch_slices[..scratch.len()],
            parallel: &parallel,
        });
    })
}
