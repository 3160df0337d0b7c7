//! Ops that move data: those that the plan could not turn into views, and conversions between f32 and f16.

use bytemuck::{Pod, Zeroable};

use super::modules::GATHER;
use super::rows::{in_units, row_width};
use super::walk::{Function, Strided, walk};
use super::{Context, Lowered};
use crate::compile::{Site, Storage};
use crate::cuda::memory::Memory;
use crate::cuda::plan::Plan;
use crate::error::CudaError;
use crate::graph::Tensor;
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};

/// The rows of `from` in as many rows of `to`.
fn copy(from: Operand, to: Operand, rows: Rows) -> Launch {
    let dims = [from.rows as usize, from.cols as usize];
    let elements = in_units(rows, dims[0] * dims[1]);
    let (a, out) = (Strided::new(from, &dims, 2), Strided::new(to, &dims, 2));
    walk(Function::COPY, &dims, elements, &a, None, &out)
}

/// A tensor to where an output or a state wants it.
pub(super) fn deliver(plan: &Plan, memory: &Memory, from: Tensor, to: Site) -> Result<Lowered, CudaError> {
    let ty = plan.graph.ty(from);
    let (rows, cols) = (ty.shape.rows(), ty.shape.cols());
    let to = memory.operand_at(plan, to, Storage::of(ty.dtype), rows, cols)?;
    let all = Rows { entries: 0, rows_per_entry: 1, bound: rows as u32 };
    Ok(Lowered::new("copy", vec![copy(memory.operand(plan, from)?, to, all)]))
}

/// A reshape of something with gaps between its rows into something without, or of another width.
pub(super) fn reshape(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let (from, to) = (context.input(0)?, context.output()?);
    let to = if to.cols == from.cols { to } else { to.with_cols(from.cols) };
    Ok(Lowered::new("reshape", vec![copy(from, to, in_units(context.rows()?, from.rows as usize))]))
}

/// Row blocks of a concatenation or slice along `axis`: how many, and rows of each in a tensor of these extents.
fn blocks(dims: &[usize], axis: usize) -> [usize; 2] {
    [dims[..axis].iter().product(), dims[axis..dims.len() - 1].iter().product()]
}

/// Copies blocks of `dims` (blocks, rows of each, columns) between tensors whose blocks are `from_rows` and `to_rows` long.
fn copy_blocks(from: (Operand, usize), to: (Operand, usize), dims: [usize; 3], rows: Rows) -> Launch {
    let strided = |(operand, block_rows): (Operand, usize)| {
        let strides = vec![block_rows as u32 * operand.pitch, operand.pitch, 1];
        Strided { operand, strides }
    };
    let elements = in_units(rows, dims.iter().product());
    walk(Function::COPY, &dims, elements, &strided(from), None, &strided(to))
}

pub(super) fn concat(context: &Context<'_>, axis: usize, copy_parts: &[usize]) -> Result<Lowered, CudaError> {
    let whole_dims = context.output_shape().dims();
    let (whole, rows) = (context.output()?, context.rows()?);
    let last = axis + 1 == whole_dims.len();
    let mut launches = Vec::new();
    let mut before = 0;
    for part in 0..context.node.inputs.len() {
        let dims = context.input_shape(part).dims();
        if copy_parts.contains(&part) {
            let from = context.input(part)?;
            launches.push(if last {
                copy(
                    from,
                    whole.columns(before as u32, dims[axis] as u32),
                    in_units(rows, from.rows as usize),
                )
            } else {
                let ([outer, part_rows], [_, whole_rows]) = (blocks(dims, axis), blocks(whole_dims, axis));
                let rows_before = before * part_rows / dims[axis].max(1);
                let to = whole.row_range(rows_before as u32, whole.rows - rows_before as u32);
                let size = [outer, part_rows, from.cols as usize];
                copy_blocks((from, part_rows), (to, whole_rows), size, rows)
            });
        }
        before += dims[axis];
    }
    Ok(Lowered::new("concat", launches))
}

pub(super) fn slice(context: &Context<'_>, axis: usize, start: usize) -> Result<Lowered, CudaError> {
    let (from_dims, to_dims) = (context.input_shape(0).dims(), context.output_shape().dims());
    let (from, to, rows) = (context.input(0)?, context.output()?, context.rows()?);
    if axis + 1 == from_dims.len() {
        let part = from.columns(start as u32, to_dims[axis] as u32);
        return Ok(Lowered::new("slice", vec![copy(part, to, rows)]));
    }
    let ([outer, from_rows], [_, to_rows]) = (blocks(from_dims, axis), blocks(to_dims, axis));
    let rows_before = start * to_rows / to_dims[axis];
    let part = from.row_range(rows_before as u32, from.rows - rows_before as u32);
    let size = [outer, to_rows, to.cols as usize];
    Ok(Lowered::new("slice", vec![copy_blocks((part, from_rows), (to, to_rows), size, rows)]))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GatherParams {
    table: Operand,
    indices: Operand,
    out: Operand,
    rows: Rows,
    width: u32,
    reserved: u32,
}

pub(super) fn gather(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let (table, indices, out) = (context.input(0)?, context.input(1)?, context.output()?);
    // What lies under one index as one row.
    let entries = context.input_shape(0).dims()[0];
    let cols = (context.input_shape(0).numel() / entries) as u32;
    if cols == 0 {
        return Ok(Lowered::new("gather", Vec::new()));
    }
    let (table, out) = (table.with_cols(cols), out.with_cols(cols));
    let rows = in_units(context.rows()?, out.rows as usize);
    let width = row_width(&[&table, &out]);
    let params = GatherParams { table, indices, out, rows, width, reserved: 0 };
    let threads = out.rows * (cols / width);
    let launch =
        Launch::new(&GATHER, "gather_rows", &params).grid([threads.div_ceil(256), 1, 1]).block([256, 1, 1]);
    Ok(Lowered::new("gather", vec![launch]))
}
