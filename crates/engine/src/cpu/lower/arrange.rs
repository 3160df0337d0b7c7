//! Ops that move data: those that the plan could not turn into views.

use super::{Lowered, Site};
use crate::cpu::memory::Operand;
use crate::graph::Padding;

/// Row blocks of a concatenation or slice along `axis`: how many, and rows of each in a tensor of this shape.
fn blocks(dims: &[usize], axis: usize) -> (usize, usize) {
    let outer = dims[..axis].iter().product();
    let rows = dims[axis..dims.len() - 1].iter().product();
    (outer, rows)
}

/// Copies `(from, to)` pairs in order.
fn copies(name: &str, pairs: Vec<(Operand, Operand)>) -> Lowered {
    Lowered::new(name, move |_| pairs.iter().for_each(|(from, to)| to.copy_rows_from(from)))
}

pub(super) fn concat(site: &mut Site<'_>, axis: usize, copy_parts: &[usize]) -> Lowered {
    let whole_dims = site.output_shape().dims().to_vec();
    let whole = site.output().all_rows();
    let last = axis + 1 == whole_dims.len();
    let mut pairs = Vec::new();
    let mut before = 0;
    for part in 0..site.node.inputs.len() {
        let dims = site.input_shape(part).dims().to_vec();
        if copy_parts.contains(&part) {
            let from = site.input(part).all_rows();
            if last {
                pairs.push((from, whole.columns(before, dims[axis])));
            } else {
                let ((outer, rows), (_, whole_rows)) = (blocks(&dims, axis), blocks(&whole_dims, axis));
                let rows_before = before * rows / dims[axis].max(1);
                pairs.extend((0..outer).map(|o| {
                    (from.row_range(o * rows, rows), whole.row_range(o * whole_rows + rows_before, rows))
                }));
            }
        }
        before += dims[axis];
    }
    copies("concat", pairs)
}

pub(super) fn slice(site: &mut Site<'_>, axis: usize, start: usize) -> Lowered {
    let (from_dims, to_dims) = (site.input_shape(0).dims().to_vec(), site.output_shape().dims().to_vec());
    let (from, to) = (site.input(0).all_rows(), site.output().all_rows());
    if axis + 1 == from_dims.len() {
        return copies("slice", vec![(from.columns(start, to_dims[axis]), to)]);
    }
    let ((outer, from_rows), (_, to_rows)) = (blocks(&from_dims, axis), blocks(&to_dims, axis));
    let rows_before = start * to_rows / to_dims[axis];
    let pairs = (0..outer)
        .map(|o| (from.row_range(o * from_rows + rows_before, to_rows), to.row_range(o * to_rows, to_rows)))
        .collect();
    copies("slice", pairs)
}

/// A reshape of something with gaps between its rows into something without: rows are copied as they come.
pub(super) fn reshape(site: &mut Site<'_>) -> Lowered {
    let (from, to) = (site.input(0).all_rows(), site.output().all_rows());
    let to = to.with_cols(from.cols);
    copies("reshape", vec![(from, to)])
}

pub(super) fn gather(site: &mut Site<'_>) -> Lowered {
    let (table, indices, out) = (site.input(0), site.input(1), site.output());
    // Rows of the leading dimension as one row each.
    let entries = site.input_shape(0).dims()[0];
    let width = table.rows * table.cols / entries;
    let (table, out) = (table.all_rows().with_cols(width), out.all_rows().with_cols(width));
    Lowered::new("gather", move |call| {
        let indices = indices.slice();
        let indices = indices.i32();
        let rows_at_once = (GATHERED_AT_ONCE / width.max(1)).max(1);
        call.pool.parallel_for(indices.len().div_ceil(rows_at_once), |chunk| {
            let first = chunk * rows_at_once;
            for (row, &index) in indices.iter().enumerate().skip(first).take(rows_at_once) {
                let from = usize::try_from(index).unwrap_or(0).min(entries - 1);
                out.row_range(row, 1).copy_rows_from(&table.row_range(from, 1));
            }
        });
    })
}

/// Elements that one thread gathers before it asks for more.
const GATHERED_AT_ONCE: usize = 1 << 14;

pub(super) fn pad(site: &mut Site<'_>, padding: Padding) -> Lowered {
    let (from_dims, to_dims) = (site.input_shape(0).dims().to_vec(), site.output_shape().dims().to_vec());
    let (from, to) = (site.input(0).all_rows(), site.output().all_rows());
    let (h, w, padded_h, padded_w) = (from_dims[1], from_dims[2], to_dims[1], to_dims[2]);
    Lowered::new("pad", move |_| {
        to.slice_mut().f32().fill(0.0);
        for line in 0..from.rows / w {
            let (n, y) = (line / h, line % h);
            let first = (n * padded_h + y + padding.top) * padded_w + padding.left;
            to.row_range(first, w).copy_rows_from(&from.row_range(line * w, w));
        }
    })
}
