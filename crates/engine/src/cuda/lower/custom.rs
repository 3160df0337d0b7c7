//! Ops of other crates.

use super::{Context, Lowered};
use crate::error::CudaError;
use crate::graph::CudaCall;
use crate::graph::CustomOp;
use crate::launch::abi::Operand;

/// Binds the op's CUDA form.
pub(super) fn custom(context: &Context<'_>, op: &dyn CustomOp) -> Result<Lowered, CudaError> {
    let operands = |tensors: &[crate::graph::Tensor]| -> Result<Vec<Operand>, CudaError> {
        tensors.iter().map(|&t| context.operand(t)).collect()
    };
    let (inputs, outputs) = (operands(&context.node.inputs)?, operands(&context.node.outputs)?);
    let input_types: Vec<_> = context.node.inputs.iter().map(|&t| context.plan.graph.ty(t).clone()).collect();
    let call = CudaCall {
        input_types: &input_types,
        inputs: &inputs,
        outputs: &outputs,
        scratch: &context.scratch()?,
    };
    let launches = op.cuda(&call).ok_or_else(|| CudaError::NoCudaForm { op: op.name().into() })?;
    Ok(Lowered::new(op.name(), launches))
}
