//! Elementwise functions that only feed each other, as one kernel.

use bytemuck::{Pod, Zeroable};

use super::modules::EXPRESSION;
use super::rows::{binary_code, in_units, unary_code};
use super::walk::{MAX_RANK, Strided, THREADS, collapse, padded};
use super::{Context, Lowered};
use crate::compile::facts::Function;
use crate::cuda::plan::{Expression, MAX_LEAVES, MAX_STEPS, Value};
use crate::error::CudaError;
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};

/// Numbers of functions of two arguments start here: `BINARY` in `functions.cuh`.
const BINARY: u32 = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Step {
    op: u32,
    a: u32,
    b: u32,
    alpha: f32,
    beta: f32,
}

/// The params of `expression.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ExpressionParams {
    leaves: [Operand; MAX_LEAVES],
    out: Operand,
    elements: Rows,
    rank: u32,
    leaf_count: u32,
    step_count: u32,
    reserved: u32,
    dims: [u32; MAX_RANK],
    out_strides: [u32; MAX_RANK],
    strides: [[u32; MAX_RANK]; MAX_LEAVES],
    steps: [Step; MAX_STEPS],
}

/// Binds the expression of `nodes`, the last of which is the context's.
pub(super) fn expression(context: &Context<'_>, nodes: &[usize]) -> Result<Lowered, CudaError> {
    let graph = &context.plan.graph;
    let expression = Expression::of(graph, nodes, &|t| context.plan.site(t).pitch)
        .expect("the plan only joins what is an expression at any pitch");
    let dims = &expression.dims;
    let out = Strided::new(context.output()?, dims, dims.len());
    let none = vec![0; dims.len()];
    let mut leaves = [Operand::NONE; MAX_LEAVES];
    let mut strides: [Vec<u32>; MAX_LEAVES + 1] = std::array::from_fn(|_| none.clone());
    for (i, leaf) in expression.leaves.iter().enumerate() {
        let whole = context.operand(leaf.tensor)?;
        let before = leaf.offset as u64 * u64::from(whole.element_bytes());
        leaves[i] = Operand { data: whole.data + before, ..whole };
        strides[i] = leaf.strides.iter().map(|&s| s as u32).collect();
    }
    strides[MAX_LEAVES] = out.strides;
    let (dims, strides) =
        collapse::<{ MAX_LEAVES + 1 }>(dims, std::array::from_fn(|i| strides[i].as_slice()));

    let place = |value: Value| match value {
        Value::Leaf(i) => i as u32,
        Value::Step(i) => (MAX_LEAVES + i) as u32,
    };
    let mut steps = [Step::zeroed(); MAX_STEPS];
    let mut name = String::new();
    for (to, step) in steps.iter_mut().zip(&expression.steps) {
        let (op, alpha, beta) = match step.function {
            Function::Unary(op) => unary_code(op),
            Function::Binary(op) => (BINARY + binary_code(op), 0.0, 0.0),
        };
        let [a, b] = step.arguments.map(place);
        *to = Step { op, a, b, alpha, beta };
        let op = match step.function {
            Function::Unary(op) => crate::graph::Op::Unary(op),
            Function::Binary(op) => crate::graph::Op::Binary(op),
        };
        name += if name.is_empty() { "" } else { "+" };
        name += op.name();
    }
    let elements = in_units(context.rows()?, context.output_shape().numel());
    let params = ExpressionParams {
        leaves,
        out: out.operand,
        elements,
        rank: dims.len() as u32,
        leaf_count: expression.leaves.len() as u32,
        step_count: expression.steps.len() as u32,
        reserved: 0,
        dims: padded(&dims),
        out_strides: padded(&strides[MAX_LEAVES]),
        strides: std::array::from_fn(|i| padded(&strides[i])),
        steps,
    };
    let launch = Launch::new(&EXPRESSION, "expression", &params)
        .grid([elements.bound.div_ceil(THREADS), 1, 1])
        .block([THREADS, 1, 1]);
    Ok(Lowered::new(name, vec![launch]))
}
