//! Elementwise kernels: a result walked as a few collapsed dimensions, with a step along each for every operand.

use bytemuck::{Pod, Zeroable};

use super::modules::ELEMENTWISE;
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};

/// Dimensions that a kernel can walk.
pub(super) const MAX_RANK: usize = 6;
/// Threads of a block.
pub(super) const THREADS: u32 = 256;

/// An operand with its extents and the elements from one entry to the next along each; 0 where it broadcasts.
#[derive(Debug, Clone)]
pub(super) struct Strided {
    pub operand: Operand,
    pub strides: Vec<u32>,
}

impl Strided {
    /// A tensor of extents `dims` that is met by a result of rank `rank`.
    pub(super) fn new(operand: Operand, dims: &[usize], rank: usize) -> Self {
        let mut strides = vec![0; rank];
        let mut step = 1;
        for (axis, &extent) in dims.iter().enumerate().rev() {
            let last = axis + 1 == dims.len();
            if extent != 1 {
                strides[rank - dims.len() + axis] = step;
            }
            step = if last { operand.pitch } else { step * extent as u32 };
        }
        Strided { operand, strides }
    }
}

/// The params of `elementwise.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    a: Operand,
    b: Operand,
    out: Operand,
    elements: Rows,
    op: u32,
    rank: u32,
    width: u32,
    alpha: f32,
    beta: f32,
    dims: [u32; MAX_RANK],
    a_strides: [u32; MAX_RANK],
    b_strides: [u32; MAX_RANK],
    out_strides: [u32; MAX_RANK],
    reserved: u32,
}

/// What a kernel does with the elements it meets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub kernel: &'static str,
    pub op: u32,
    pub alpha: f32,
    pub beta: f32,
}

impl Function {
    /// Elements as they are, converted between f32 and f16 where storage differs.
    pub(super) const COPY: Function = Function { kernel: "copy_rows", op: 0, alpha: 0.0, beta: 0.0 };
}

/// `function` of `a` (and `b`) into `out`, for the leading `elements` of a result of extents `dims`.
pub(super) fn walk(
    function: Function,
    dims: &[usize],
    elements: Rows,
    a: &Strided,
    b: Option<&Strided>,
    out: &Strided,
) -> Launch {
    let none = Strided { operand: Operand::NONE, strides: vec![0; dims.len()] };
    let operands = [a, b.unwrap_or(&none), out];
    let (dims, strides) = collapse(dims, operands.map(|o| o.strides.as_slice()));
    let width = width(&dims, &strides, operands);
    let params = Params {
        a: operands[0].operand,
        b: operands[1].operand,
        out: operands[2].operand,
        elements,
        op: function.op,
        rank: dims.len() as u32,
        width,
        alpha: function.alpha,
        beta: function.beta,
        dims: padded(&dims),
        a_strides: padded(&strides[0]),
        b_strides: padded(&strides[1]),
        out_strides: padded(&strides[2]),
        reserved: 0,
    };
    let blocks = (elements.bound / width).div_ceil(THREADS);
    Launch::new(&ELEMENTWISE, function.kernel, &params).grid([blocks, 1, 1]).block([THREADS, 1, 1])
}

/// Joins neighbouring dimensions that every operand walks with one step. At least one is left.
pub(super) fn collapse<const N: usize>(dims: &[usize], strides: [&[u32]; N]) -> (Vec<u32>, [Vec<u32>; N]) {
    let mut extents: Vec<u32> = Vec::new();
    let mut steps: [Vec<u32>; N] = std::array::from_fn(|_| Vec::new());
    for (axis, &extent) in dims.iter().enumerate().filter(|(_, extent)| **extent != 1) {
        let joins = (0..N).all(|i| steps[i].last().is_some_and(|&s| s == strides[i][axis] * extent as u32));
        if let (true, Some(last)) = (joins, extents.last_mut()) {
            *last *= extent as u32;
            (0..N).for_each(|i| *steps[i].last_mut().expect("as long as the extents") = strides[i][axis]);
        } else {
            extents.push(extent as u32);
            (0..N).for_each(|i| steps[i].push(strides[i][axis]));
        }
    }
    if extents.is_empty() {
        extents.push(1);
        steps.iter_mut().for_each(|s| s.push(0));
    }
    assert!(extents.len() <= MAX_RANK, "at most {MAX_RANK} dimensions that cannot be joined");
    (extents, steps)
}

/// Values in front of zeros.
pub(super) fn padded(values: &[u32]) -> [u32; MAX_RANK] {
    std::array::from_fn(|i| values.get(i).copied().unwrap_or(0))
}

/// 4 where a thread may take four neighbours at once, else 1.
fn width(dims: &[u32], strides: &[Vec<u32>; 3], operands: [&Strided; 3]) -> u32 {
    let (last, outer) = (dims.len() - 1, ..dims.len() - 1);
    let fits = |i: usize| {
        let operand = operands[i].operand;
        let along = strides[i][last];
        let in_line = along == 1
            && operand.data.is_multiple_of(u64::from(4 * operand.element_bytes()))
            && strides[i][outer].iter().all(|s| s.is_multiple_of(4));
        // One value for all four, but not of the result.
        in_line || (along == 0 && i < 2)
    };
    if dims[last].is_multiple_of(4) && (0..3).all(fits) { 4 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_joined_where_all_operands_allow_it() {
        let operand = |pitch: u32| Operand { pitch, ..Operand::NONE };
        let dims = [2, 3, 5, 8];
        let dense = Strided::new(operand(8), &dims, 4);
        let gaps = Strided::new(operand(12), &dims, 4);
        let row = Strided::new(operand(8), &[8], 4);
        let joined = |a: &Strided, b: &Strided| collapse(&dims, [&a.strides, &b.strides, &dense.strides]);
        assert_eq!(joined(&dense, &dense).0, [240]);
        assert_eq!(joined(&gaps, &dense), (vec![30, 8], [vec![12, 1], vec![8, 1], vec![8, 1]]));
        assert_eq!(joined(&dense, &row), (vec![30, 8], [vec![8, 1], vec![0, 1], vec![8, 1]]));
        assert_eq!(collapse(&[1, 1], [&[0, 0], &[0, 0], &[0, 0]]).0, [1]);
    }
}
