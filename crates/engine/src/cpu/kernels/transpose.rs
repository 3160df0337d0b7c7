//! Transposing matrices, block by block.
use super::elementwise::by_rows;
use super::view::{View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd};

/// `out[c, r] = x[r, c]` for each of `batch` matrices that lie one below the other: `x` is
/// `[batch · R, C]`, `out` is `[batch · C, R]`. NHWC to NCHW is `R = H · W`; back is `C = H · W`.
pub fn transpose(level: Level, pool: &Pool, x: View, batch: usize, out: ViewMut) {
    assert!(batch > 0 && x.rows().is_multiple_of(batch), "{} rows of {batch} matrices", x.rows());
    let (rows, cols) = (x.rows() / batch, x.cols());
    assert_eq!((out.rows(), out.cols()), (batch * cols, rows), "the output of a transposition");
    // Strips of whole cache lines of the output.
    let strips = rows.div_ceil(64);
    by_rows(pool, batch * strips, 64 * cols, 8192, |range| {
        for item in range {
            let (b, r) = (item / strips, item % strips * 64);
            let kernel = TransposeBlock {
                src: x.ptr().wrapping_add((b * rows + r) * x.pitch()),
                src_pitch: x.pitch(),
                rows: 64.min(rows - r),
                cols,
                dst: out.ptr().wrapping_add(b * cols * out.pitch() + r),
                dst_pitch: out.pitch(),
            };
            // SAFETY: strip `r` of matrix `b` is inside both views, and strips are disjoint.
            unsafe { level.dispatch(kernel) };
        }
    });
}

/// `dst[c, r] = src[r, c]`.
pub(crate) struct TransposeBlock {
    pub src: *const f32,
    pub src_pitch: usize,
    pub rows: usize,
    pub cols: usize,
    pub dst: *mut f32,
    pub dst_pitch: usize,
}

impl Kernel for TransposeBlock {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (full_rows, full_cols) = (self.rows / S::LANES * S::LANES, self.cols / S::LANES * S::LANES);
        // SAFETY: the caller's promise: `rows` by `cols` elements behind both pointers.
        unsafe {
            for c in (0..full_cols).step_by(S::LANES) {
                for r in (0..full_rows).step_by(S::LANES) {
                    let src = self.src.add(r * self.src_pitch + c);
                    S::transpose(src, self.src_pitch, self.dst.add(c * self.dst_pitch + r), self.dst_pitch);
                }
            }
            let one = |r: usize, c: usize| {
                *self.dst.add(c * self.dst_pitch + r) = *self.src.add(r * self.src_pitch + c);
            };
            for c in 0..self.cols {
                let from = if c < full_cols { full_rows } else { 0 };
                for r in from..self.rows {
                    one(r, c);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, everywhere};

    #[test]
    fn transpose_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..30 {
                let (batch, r, c) = (rng.size(1, 3), rng.size(1, 200), rng.size(1, 80));
                let x = rng.matrix(batch * r, c);
                let before = rng.matrix(batch * c, r);
                let mut out = before.clone();
                transpose(level, pool, x.view(), batch, out.view_mut());
                out.check(&before, 0.0, &format!("{level:?} {batch} {r}x{c}"), |i, j| {
                    x.at(i / c * r + j, i % c)
                });
            }
        });
    }
}
