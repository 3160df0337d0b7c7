//! Ops that move data, elementwise broadcasting, top-k.

use super::Values;
use crate::graph::Padding;
use crate::tensor::Shape;
use crate::values::Data;

fn strides(shape: &Shape) -> Vec<usize> {
    let mut strides = vec![1; shape.rank()];
    for i in (1..shape.rank()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Position along every dimension of the flat index `flat`.
fn position(shape: &Shape, mut flat: usize) -> Vec<usize> {
    let mut at = vec![0; shape.rank()];
    for i in (0..shape.rank()).rev() {
        at[i] = flat % shape[i];
        flat /= shape[i];
    }
    at
}

pub(super) fn binary(a: &Values, b: &Values, out: Shape, f: impl Fn(f64, f64) -> f64) -> Values {
    let offset = |v: &Values, at: &[usize]| {
        let skip = out.rank() - v.shape.rank();
        strides(&v.shape)
            .iter()
            .enumerate()
            .map(|(i, stride)| if v.shape[i] == 1 { 0 } else { at[i + skip] * stride })
            .sum::<usize>()
    };
    let values = (0..out.numel()).map(|flat| {
        let at = position(&out, flat);
        f(a.as_f64()[offset(a, &at)], b.as_f64()[offset(b, &at)])
    });
    let values = values.collect();
    Values::f64(out, values)
}

pub(super) fn reduce(x: &Values, out: Shape, f: impl Fn(&[f64]) -> f64) -> Values {
    Values::f64(out, x.as_f64().chunks_exact(x.shape.cols()).map(f).collect())
}

pub(super) fn slice(x: &Values, axis: usize, start: usize, out: Shape) -> Values {
    let from = strides(&x.shape);
    let shape = out.clone();
    let indices = (0..shape.numel()).map(|flat| {
        let mut at = position(&shape, flat);
        at[axis] += start;
        Some(at.iter().zip(&from).map(|(i, s)| i * s).sum())
    });
    x.rearranged(out, indices)
}

pub(super) fn concat(parts: &[&Values], axis: usize, out: Shape) -> Values {
    let inner: usize = out.dims()[axis + 1..].iter().product();
    let outer: usize = out.dims()[..axis].iter().product();
    // A one-part "joined" tensor of all elements in part order, then indices into it.
    let sizes: Vec<usize> = parts.iter().map(|p| p.shape.numel()).collect();
    let starts: Vec<usize> = sizes.iter().scan(0, |acc, n| Some(std::mem::replace(acc, *acc + n))).collect();
    let mut indices = Vec::with_capacity(out.numel());
    for o in 0..outer {
        for (part, start) in parts.iter().zip(&starts) {
            let row = part.shape[axis] * inner;
            indices.extend((0..row).map(|i| Some(start + o * row + i)));
        }
    }
    let joined = match parts[0].data {
        Data::F64(_) => Values::f64(
            [sizes.iter().sum::<usize>()],
            parts.iter().flat_map(|p| p.as_f64()).copied().collect(),
        ),
        Data::I32(_) => Values::i32(
            [sizes.iter().sum::<usize>()],
            parts.iter().flat_map(|p| p.as_i32()).copied().collect(),
        ),
        Data::U8(_) => {
            Values::u8([sizes.iter().sum::<usize>()], parts.iter().flat_map(|p| p.as_u8()).copied().collect())
        }
    };
    joined.rearranged(out, indices.into_iter())
}

pub(super) fn pad(x: &Values, padding: Padding, out: Shape) -> Values {
    let (h, w, c) = (x.shape[1], x.shape[2], x.shape[3]);
    let shape = out.clone();
    let indices = (0..shape.numel()).map(|flat| {
        let at = position(&shape, flat);
        let (y, x) = (at[1].checked_sub(padding.top)?, at[2].checked_sub(padding.left)?);
        (y < h && x < w).then(|| ((at[0] * h + y) * w + x) * c + at[3])
    });
    x.rearranged(out, indices)
}

pub(super) fn gather(table: &Values, indices: &Values, out: Shape) -> Values {
    let inner: usize = table.shape.dims()[1..].iter().product();
    let last = table.shape[0] as i32 - 1;
    let flat = indices
        .as_i32()
        .iter()
        .flat_map(|&i| (0..inner).map(move |j| Some(i.clamp(0, last) as usize * inner + j)));
    table.rearranged(out, flat)
}

pub(super) fn top_k(x: &Values, k: usize, out: Shape) -> Vec<Values> {
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for row in x.as_f64().chunks_exact(x.shape.cols()) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        // `total_cmp` on absolute NaNs: not a number comes first, as in PyTorch.
        let key = |i: usize| if row[i].is_nan() { f64::NAN } else { row[i] + 0.0 };
        order.sort_by(|&i, &j| key(j).total_cmp(&key(i)).then(i.cmp(&j)));
        values.extend(order[..k].iter().map(|&i| row[i]));
        indices.extend(order[..k].iter().map(|&i| i as i32));
    }
    vec![Values::f64(out.clone(), values), Values::i32(out, indices)]
}
