//! The k largest of a row.
use super::elementwise::by_rows;
use super::view::{View, ViewMut};
use crate::cpu::pool::Pool;

/// NaN counts as the largest, as in PyTorch.
#[inline(always)]
fn greater(a: f32, b: f32) -> bool {
    a > b || (a.is_nan() && !b.is_nan())
}

/// Whether `(a, i)` comes before `(b, j)`: larger first, then the lower index.
#[inline(always)]
fn before((a, i): (f32, u32), (b, j): (f32, u32)) -> bool {
    greater(a, b) || (!greater(b, a) && i < j)
}

/// The `k` largest of each row of `x[R, N]`, largest first, of equal ones the lower index first:
/// `values[R, k]` and `indices`, `R · k` columns of `x`.
pub fn top_k(pool: &Pool, x: View, k: usize, values: ViewMut, indices: &mut [u32]) {
    assert_eq!((x.rows(), k), (values.rows(), values.cols()), "the values' size");
    assert_eq!(indices.len(), x.rows() * k, "the indices' size");
    assert!(k <= x.cols() && x.cols() <= u32::MAX as usize, "the {k} largest of {}", x.cols());
    if k == 0 {
        return;
    }
    let indices = ViewMut::new(indices, x.rows(), k, k);
    by_rows(pool, x.rows(), x.cols(), 8192, |rows| {
        for r in rows {
            // SAFETY: row `r` of each output is written by one chunk.
            let (values, indices) = unsafe { (values.shared_row(r), indices.shared_row(r)) };
            top_of_row(x.row(r), values, indices);
        }
    });
}

/// A heap of the best so far, the worst of them on top, in the output's own memory; then sorted there.
fn top_of_row(x: &[f32], values: &mut [f32], indices: &mut [u32]) {
    let k = values.len();
    values.copy_from_slice(&x[..k]);
    for (i, index) in indices.iter_mut().enumerate() {
        *index = i as u32;
    }
    for i in (0..k / 2).rev() {
        sink(values, indices, i);
    }
    // Blocks without a candidate are passed over at vector speed.
    const BLOCK: usize = 64;
    let mut at = k;
    while at < x.len() {
        let block = &x[at..x.len().min(at + BLOCK)];
        let worst = values[0];
        let none = block.iter().fold(true, |none, &v| none & (v <= worst));
        if !none {
            for (i, &v) in block.iter().enumerate() {
                // An equal one comes later, so it loses.
                if greater(v, values[0]) {
                    values[0] = v;
                    indices[0] = (at + i) as u32;
                    sink(values, indices, 0);
                }
            }
        }
        at += block.len();
    }
    for end in (1..k).rev() {
        values.swap(0, end);
        indices.swap(0, end);
        sink(&mut values[..end], &mut indices[..end], 0);
    }
}

fn sink(values: &mut [f32], indices: &mut [u32], mut i: usize) {
    loop {
        let mut child = 2 * i + 1;
        if child >= values.len() {
            return;
        }
        let at = |j: usize| (values[j], indices[j]);
        if child + 1 < values.len() && before(at(child), at(child + 1)) {
            child += 1;
        }
        if !before(at(i), at(child)) {
            return;
        }
        values.swap(i, child);
        indices.swap(i, child);
        i = child;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::Rng;

    #[test]
    fn top_k_is_a_stable_sort_cut_short() {
        let mut rng = Rng::seeded();
        let pool = Pool::new(2);
        for case in 0..60 {
            let (r, n) =
                if case % 10 == 0 { (1, rng.size(8000, 9000)) } else { (rng.size(1, 50), rng.size(1, 100)) };
            let k = rng.size(1, n.min(300));
            let mut x = rng.matrix(r, n);
            if rng.coin() {
                // Many ties.
                x.data.iter_mut().for_each(|v| *v = (*v * 5.0).round());
            }
            if rng.coin() {
                x.data[0] = f32::NAN;
            }
            let mut values = rng.matrix(r, k);
            let mut indices = vec![0u32; r * k];
            top_k(&pool, x.view(), k, values.view_mut(), &mut indices);
            for row in 0..r {
                let line = x.view().row(row);
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&a, &b| {
                    // Adding zero makes the two zeros one.
                    let key = |v: f32| if v.is_nan() { f32::INFINITY } else { v + 0.0 };
                    key(line[b]).total_cmp(&key(line[a]))
                });
                for i in 0..k {
                    assert_eq!(indices[row * k + i] as usize, order[i], "row {row}, place {i} of {r}x{n}");
                    let (got, want) = (values.view().row(row)[i], line[order[i]]);
                    assert!(got == want || (got.is_nan() && want.is_nan()));
                }
            }
        }
    }
}
