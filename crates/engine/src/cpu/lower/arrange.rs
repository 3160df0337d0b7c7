//! Ops that move data: those that the plan could not turn into views.

use super::{Context, Lowered};
use crate::cpu::kernels;
use crate::cpu::memory::{Operand, Output};
use crate::graph::Padding;

/// Row blocks of a concatenation or slice along `axis`: how many, and rows of each in a tensor of this shape.
fn blocks(dims: &[usize], axis: usize) -> (usize, usize) {
    let outer = dims[..axis].iter().product();
    let rows = dims[axis..dims.len() - 1].iter().product();
    (outer, rows)
}

/// A part of a result that is a copy: the source, and its place.
type Part = (Operand, Output);

fn copies(name: &str, mut parts: Vec<Part>) -> Lowered {
    Lowered::new(name, move |_| {
        parts.iter_mut().for_each(|(from, to)| to.bytes_mut().copy_from(from.bytes()))
    })
}

pub(super) fn concat(context: &Context<'_>, axis: usize, copy_parts: &[usize]) -> Lowered {
    let whole_dims = context.output_shape().dims();
    let (outer, whole_rows) = blocks(whole_dims, axis);
    let last = axis + 1 == whole_dims.len();
    let mut parts = Vec::new();
    let mut before = 0;
    for part in 0..context.node.inputs.len() {
        let dims = context.input_shape(part).dims();
        if copy_parts.contains(&part) {
            let from = context.input(part);
            if last {
                parts.push((from, context.output_part([0, before], from)));
            } else {
                let (_, rows) = blocks(dims, axis);
                let rows_before = before * rows / dims[axis].max(1);
                parts.extend((0..outer).map(|o| {
                    let from = from.row_range(o * rows, rows);
                    (from, context.output_part([o * whole_rows + rows_before, 0], from))
                }));
            }
        }
        before += dims[axis];
    }
    copies("concat", parts)
}

pub(super) fn slice(context: &Context<'_>, axis: usize, start: usize) -> Lowered {
    let (from_dims, to_dims) = (context.input_shape(0).dims(), context.output_shape().dims());
    let from = context.input(0);
    if axis + 1 == from_dims.len() {
        return copies("slice", vec![(from.columns(start, to_dims[axis]), context.output())]);
    }
    let ((outer, from_rows), (_, to_rows)) = (blocks(from_dims, axis), blocks(to_dims, axis));
    let rows_before = start * to_rows / to_dims[axis];
    let part = |o: usize| {
        let from = from.row_range(o * from_rows + rows_before, to_rows);
        (from, context.output_part([o * to_rows, 0], from))
    };
    copies("slice", (0..outer).map(part).collect())
}

/// A reshape of something with gaps between its rows into something without: rows are copied as they come.
pub(super) fn reshape(context: &Context<'_>) -> Lowered {
    let from = context.input(0);
    copies("reshape", vec![(from, context.output().with_cols(from.cols))])
}

pub(super) fn gather(context: &Context<'_>) -> Lowered {
    let (table, indices, out) = (context.input(0), context.input(1), context.output());
    // Rows of the leading dimension as one row each.
    let width = table.rows * table.cols / context.input_shape(0).dims()[0];
    let (table, mut out) = (table.with_cols(width), out.with_cols(width));
    Lowered::new("gather", move |call| {
        kernels::gather(call.pool, table.bytes(), indices.slice().i32(), out.bytes_mut());
    })
}

pub(super) fn pad(context: &Context<'_>, padding: Padding) -> Lowered {
    let (from_dims, to_dims) =
        (context.input_shape(0).dims().to_vec(), context.output_shape().dims().to_vec());
    let (from, mut to) = (context.input(0), context.output());
    let (h, w, padded_h, padded_w) = (from_dims[1], from_dims[2], to_dims[1], to_dims[2]);
    Lowered::new("pad", move |_| {
        to.slice_mut().f32().fill(0.0);
        let (from, mut to) = (from.view(None), to.view_mut(None));
        for line in 0..from.rows() / w {
            let (n, y) = (line / h, line % h);
            let first = (n * padded_h + y + padding.top) * padded_w + padding.left;
            to.reborrow().row_range(first, w).copy_from(from.row_range(line * w, w));
        }
    })
}
