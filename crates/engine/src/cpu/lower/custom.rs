//! Ops of other crates.

use std::sync::Arc;

use super::{Context, Lowered};
use crate::compile::{Home, Site};
use crate::cpu::memory::{Operand, Output};
use crate::graph::{CpuCall, CustomOp, Slice, SliceMut};

/// Longest list of inputs, outputs or scratch buffers.
const MAX_OPERANDS: usize = 24;

/// Binds the op's CPU form. The lists of slices live on the stack: a run allocates nothing.
pub(super) fn custom(context: &Context<'_>, op: Arc<dyn CustomOp>) -> Lowered {
    let inputs: Vec<Operand> = (0..context.node.inputs.len()).map(|i| context.input(i)).collect();
    let mut outputs = context.outputs();
    let index = context
        .plan
        .graph
        .nodes()
        .iter()
        .position(|n| std::ptr::eq(n, context.node))
        .expect("a node of its plan");
    let mut scratch: Vec<Output> = context.plan.scratch[index]
        .iter()
        .map(|&(dtype, n, offset)| {
            let place = Site { home: Home::Arena(offset), offset: 0, pitch: n };
            // SAFETY: the promise of `lower`; scratch memory is the step's own.
            unsafe { context.memory.output_at(context.plan, place, dtype, 1, n) }
        })
        .collect();
    assert!(
        inputs.len() <= MAX_OPERANDS && outputs.len() <= MAX_OPERANDS && scratch.len() <= MAX_OPERANDS,
        "at most {MAX_OPERANDS} operands"
    );
    let (n_outputs, n_scratch) = (outputs.len(), scratch.len());
    Lowered::new(op.name().to_owned(), move |call| {
        let input_slices: [Slice<'_>; MAX_OPERANDS] =
            std::array::from_fn(|i| inputs.get(i).map_or(Slice::U8(&[]), Operand::slice));
        let (mut output_slices, mut scratch_slices) = (slices_mut(&mut outputs), slices_mut(&mut scratch));
        let parallel = |n: usize, body: &(dyn Fn(usize) + Sync)| call.pool.parallel_for(n, body);
        op.cpu(&mut CpuCall {
            inputs: &input_slices[..inputs.len()],
            outputs: &mut output_slices[..n_outputs],
            scratch: &mut scratch_slices[..n_scratch],
            parallel: &parallel,
        });
    })
}

fn slices_mut(outputs: &mut [Output]) -> [SliceMut<'_>; MAX_OPERANDS] {
    let mut slices = outputs.iter_mut().map(Output::slice_mut);
    std::array::from_fn(|_| slices.next().unwrap_or(SliceMut::U8(&mut [])))
}
