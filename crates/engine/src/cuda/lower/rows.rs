//! Ops on rows: norms, softmax, reductions, top-k, elementwise functions with broadcasting.

use bytemuck::{Pod, Zeroable};

use super::gemm::activation;
use super::modules::{ROWS, TOP_K};
use super::walk::{Function, Strided, walk};
use super::{Context, Lowered};
use crate::error::CudaError;
use crate::graph::{BinaryOp, Epilogue, Op, ReduceOp, UnaryOp};
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};

/// Warps of a block where each takes a row.
const WARPS: u32 = 4;

/// A launch of one warp a row.
pub(super) fn by_warps(launch: Launch, rows: u32) -> Launch {
    launch.grid([rows.div_ceil(WARPS), 1, 1]).block([32 * WARPS, 1, 1])
}

/// 4 where each row of the operands starts at a multiple of four elements and has as many, else 1.
pub(super) fn row_width(operands: &[&Operand]) -> u32 {
    let fits = |o: &&Operand| {
        o.cols.is_multiple_of(4)
            && (o.pitch.is_multiple_of(4) || o.rows <= 1)
            && o.data.is_multiple_of(u64::from(4 * o.element_bytes()))
    };
    if operands.iter().all(fits) { 4 } else { 1 }
}

/// The valid part of a tensor in elements rather than rows, of `total` in all.
pub(super) fn in_units(rows: Rows, total: usize) -> Rows {
    let (bound, each) = (u64::from(rows.bound.max(1)), u64::from(rows.rows_per_entry));
    Rows { rows_per_entry: (each * total as u64 / bound) as u32, bound: total as u32, ..rows }
}

/// Number of a function of one argument in `functions.cuh`, and its two parameters.
pub(super) fn unary_code(op: UnaryOp) -> (u32, f32, f32) {
    match op {
        UnaryOp::Relu => (0, 0.0, 0.0),
        UnaryOp::Silu => (1, 0.0, 0.0),
        UnaryOp::Gelu => (2, 0.0, 0.0),
        UnaryOp::Sigmoid => (3, 0.0, 0.0),
        UnaryOp::Tanh => (4, 0.0, 0.0),
        UnaryOp::Exp => (5, 0.0, 0.0),
        UnaryOp::Log => (6, 0.0, 0.0),
        UnaryOp::Sqrt => (7, 0.0, 0.0),
        UnaryOp::Sin => (8, 0.0, 0.0),
        UnaryOp::Cos => (9, 0.0, 0.0),
        UnaryOp::Abs => (10, 0.0, 0.0),
        UnaryOp::Clamp(low, high) => (11, low, high),
        UnaryOp::Affine(scale, shift) => (12, scale, shift),
    }
}

/// Number of a function of two arguments in `functions.cuh`.
pub(super) fn binary_code(op: BinaryOp) -> u32 {
    match op {
        BinaryOp::Add => 0,
        BinaryOp::Sub => 1,
        BinaryOp::Mul => 2,
        BinaryOp::Div => 3,
        BinaryOp::Max => 4,
        BinaryOp::Min => 5,
    }
}

pub(super) fn unary(context: &Context<'_>, op: UnaryOp) -> Result<Lowered, CudaError> {
    let (op, alpha, beta) = unary_code(op);
    let dims = context.output_shape().dims();
    let function = Function { kernel: "unary_elements", op, alpha, beta };
    let a = Strided::new(context.input(0)?, dims, dims.len());
    let out = Strided::new(context.output()?, dims, dims.len());
    let elements = in_units(context.rows()?, context.output_shape().numel());
    Ok(Lowered::new(context.node.op.name(), vec![walk(function, dims, elements, &a, None, &out)]))
}

pub(super) fn binary(context: &Context<'_>, op: BinaryOp) -> Result<Lowered, CudaError> {
    let dims = context.output_shape().dims();
    let function = Function { kernel: "binary_elements", op: binary_code(op), alpha: 0.0, beta: 0.0 };
    let a = Strided::new(context.input(0)?, context.input_shape(0).dims(), dims.len());
    let b = Strided::new(context.input(1)?, context.input_shape(1).dims(), dims.len());
    let out = Strided::new(context.output()?, dims, dims.len());
    let elements = in_units(context.rows()?, context.output_shape().numel());
    Ok(Lowered::new(context.node.op.name(), vec![walk(function, dims, elements, &a, Some(&b), &out)]))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ReduceParams {
    x: Operand,
    out: Operand,
    rows: Rows,
    op: u32,
    width: u32,
}

pub(super) fn reduce(context: &Context<'_>, op: ReduceOp) -> Result<Lowered, CudaError> {
    let (x, out, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let op = match op {
        ReduceOp::Max => 0,
        ReduceOp::Sum => 1,
        ReduceOp::Mean => 2,
    };
    let params = ReduceParams { x, out, rows, op, width: row_width(&[&x]) };
    let launch = by_warps(Launch::new(&ROWS, "reduce_rows", &params), rows.bound);
    Ok(Lowered::new(context.node.op.name(), vec![launch]))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SoftmaxParams {
    x: Operand,
    out: Operand,
    rows: Rows,
    width: u32,
    reserved: u32,
}

pub(super) fn softmax(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let (x, out, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let params = SoftmaxParams { x, out, rows, width: row_width(&[&x, &out]), reserved: 0 };
    Ok(Lowered::new("softmax", vec![by_warps(Launch::new(&ROWS, "softmax_rows", &params), rows.bound)]))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LayerNormParams {
    x: Operand,
    gamma: Operand,
    beta: Operand,
    out: Operand,
    rows: Rows,
    epsilon: f32,
    width: u32,
    zero_row: u32,
    activation: u32,
    low: f32,
    high: f32,
}

/// The layer norm of the rows of `x`, with an activation, and with `zero_row`, in the row after them, that of zeros.
pub(super) fn norm(
    x: Operand,
    [gamma, beta]: [Operand; 2],
    out: Operand,
    rows: Rows,
    epsilon: f32,
    epilogue: &Epilogue,
    zero_row: bool,
) -> Launch {
    let width = row_width(&[&x, &gamma, &beta, &out]);
    let zero_row = u32::from(zero_row);
    let activation = activation(epilogue.activation);
    let (low, high) = epilogue.clamp().unwrap_or_default();
    let params =
        LayerNormParams { x, gamma, beta, out, rows, epsilon, width, zero_row, activation, low, high };
    let kernel = if epilogue.activation.is_some() { "layer_norm_rows_activated" } else { "layer_norm_rows" };
    by_warps(Launch::new(&ROWS, kernel, &params), rows.bound + zero_row)
}

pub(super) fn layer_norm(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let Op::LayerNorm { epsilon, activation } = context.node.op else { unreachable!("dispatched on the op") };
    let parameters = [context.input(1)?, context.input(2)?];
    let epilogue = Epilogue { activation, ..Epilogue::default() };
    let launch =
        norm(context.input(0)?, parameters, context.output()?, context.rows()?, epsilon, &epilogue, false);
    Ok(Lowered::new(format!("layer_norm{epilogue}"), vec![launch]))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TopKParams {
    x: Operand,
    values: Operand,
    indices: Operand,
    rows: Rows,
    k: u32,
    sorted: u32,
}

/// Longest row, and most of its elements, that a warp takes.
const WARP_COLS: u32 = 128;
const WARP_K: u32 = 32;
/// Most elements whose keys of 8 bytes fit in the shared memory of a block on every GPU.
const MAX_SORTED: u32 = 8192;

pub(super) fn top_k(context: &Context<'_>, k: usize) -> Result<Lowered, CudaError> {
    let (x, values, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let indices = context.operand(context.node.outputs[1])?;
    let k = k as u32;
    let sorted = k.next_power_of_two();
    let params = TopKParams { x, values, indices, rows, k, sorted };
    let launch = if x.cols <= WARP_COLS && k <= WARP_K {
        by_warps(Launch::new(&TOP_K, "top_k_warp", &params), rows.bound)
    } else if sorted <= MAX_SORTED {
        let threads = x.cols.div_ceil(4).next_multiple_of(32).clamp(64, 1024);
        Launch::new(&TOP_K, "top_k_block", &params)
            .grid([rows.bound, 1, 1])
            .block([threads, 1, 1])
            .shared(8 * sorted)
    } else {
        return Err(CudaError::NoCudaForm { op: format!("top_k of more than {MAX_SORTED}") });
    };
    Ok(Lowered::new("top_k", vec![launch]))
}
