//! Products of two matrices that are both made at run time.
use super::epilogue::Post;
use super::tile::{MAX_MR, Micro, Run};
use super::transpose::TransposeBlock;
use super::view::{View, ViewMut};
use crate::cpu::pool::{Pool, SCRATCH_LEN};
use crate::cpu::simd::{Kernel, Level, Simd};

/// `out[M, N] = a[M, K] · b` for each of `batch` matrices that lie one below the other, where `b` is
/// `[K, N]`, or `[N, K]` if `transposed`. K is at most 4096.
pub fn matmul(level: Level, pool: &Pool, batch: usize, a: View, b: View, transposed: bool, out: ViewMut) {
    assert!(
        batch > 0 && a.rows().is_multiple_of(batch) && b.rows().is_multiple_of(batch),
        "rows of {batch} matrices"
    );
    let (m, k) = (a.rows() / batch, a.cols());
    let (b_rows, b_cols) = (b.rows() / batch, b.cols());
    let (n, b_k) = if transposed { (b_rows, b_cols) } else { (b_cols, b_rows) };
    assert_eq!(k, b_k, "the inner sizes of a product");
    assert_eq!((out.rows(), out.cols()), (batch * m, n), "the output of a product");
    assert!(k <= 4096, "a product over {k}: at most 4096");
    if m == 0 || n == 0 {
        return;
    }
    let panel = level.tile().1 * level.lanes();
    // As many columns as the scratch memory holds and as keep the threads busy.
    let wanted = if pool.threads() == 1 { 1 } else { (pool.threads() * 4).div_ceil(batch) };
    let n_panels = n.div_ceil(panel);
    let by_scratch = (n_panels * panel * k).div_ceil(SCRATCH_LEN);
    let n_blocks = by_scratch.max(wanted.min(n_panels));
    let m_blocks = wanted.div_ceil(n_blocks).min(m.div_ceil(64)).max(1);
    let n_blocks = n_blocks.min(n_panels);
    pool.parallel_for_scratch(batch * n_blocks * m_blocks, |chunk, scratch| {
        let (image, part) = (chunk / (n_blocks * m_blocks), chunk % (n_blocks * m_blocks));
        let (nb, mb) = (part / m_blocks, part % m_blocks);
        let (c0, c1) = (nb * n_panels / n_blocks * panel, ((nb + 1) * n_panels / n_blocks * panel).min(n));
        let (r0, r1) = (mb * m / m_blocks, (mb + 1) * m / m_blocks);
        let first = image * b_rows * b.pitch() + if transposed { c0 * b.pitch() } else { c0 };
        let kernel = Part {
            a: a.ptr().wrapping_add((image * m + r0) * a.pitch()),
            a_pitch: a.pitch(),
            b: b.ptr().wrapping_add(first),
            b_pitch: b.pitch(),
            transposed,
            m: r1 - r0,
            n: c1 - c0,
            k,
            out: out.ptr().wrapping_add((image * m + r0) * out.pitch() + c0),
            out_pitch: out.pitch(),
            scratch: scratch.as_mut_ptr(),
        };
        // SAFETY: sizes are checked above; parts are disjoint, and the scratch memory holds the columns of one.
        unsafe { level.dispatch(kernel) };
    });
}

struct Part {
    a: *const f32,
    a_pitch: usize,
    b: *const f32,
    b_pitch: usize,
    transposed: bool,
    m: usize,
    n: usize,
    k: usize,
    out: *mut f32,
    out_pitch: usize,
    scratch: *mut f32,
}

impl Kernel for Part {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let padded = self.n.next_multiple_of(S::LANES);
        // SAFETY: `matmul` checked the views and that `k` rows of `padded` columns fit the scratch memory.
        unsafe {
            let block = self.scratch;
            if self.transposed {
                S::vectorize(TransposeBlock {
                    src: self.b,
                    src_pitch: self.b_pitch,
                    rows: self.n,
                    cols: self.k,
                    dst: block,
                    dst_pitch: padded,
                });
            } else {
                for r in 0..self.k {
                    let from = self.b.add(r * self.b_pitch);
                    std::ptr::copy_nonoverlapping(from, block.add(r * padded), self.n);
                }
            }
            for r in 0..self.k {
                for c in self.n..padded {
                    *block.add(r * padded + c) = 0.0;
                }
            }
            let tiles = self.m.div_ceil(S::MR);
            for c in (0..self.n).step_by(S::NV * S::LANES) {
                let cols = (S::NV * S::LANES).min(self.n - c);
                for tile in 0..tiles {
                    let row = tile * self.m / tiles;
                    let mr = (tile + 1) * self.m / tiles - row;
                    let mut rows = [self.a; MAX_MR];
                    for (i, r) in rows.iter_mut().enumerate() {
                        *r = self.a.wrapping_add((row + i) * self.a_pitch);
                    }
                    let run = Run { k: 0, rows };
                    let micro = Micro {
                        runs: &run,
                        count: 1,
                        len: self.k,
                        weights: block.add(c),
                        weights_step: padded,
                        bias: std::ptr::null(),
                        out: self.out.add(row * self.out_pitch + c),
                        step: self.out_pitch,
                        cols,
                        post: Post::NONE,
                    };
                    if cols > S::LANES { micro.rows::<S, 2>(mr) } else { micro.rows::<S, 1>(mr) }
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
    fn matmul_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for case in 0..40 {
                let (batch, k) = (rng.size(1, 3), rng.size(1, 70));
                let mut m = rng.size(1, 40);
                let mut n = rng.size(1, 90);
                match case % 10 {
                    0 => m = 3000,
                    1 => n = 9000,
                    _ => {}
                }
                let transposed = rng.coin();
                let a = rng.matrix(batch * m, k);
                let b = if transposed { rng.matrix(batch * n, k) } else { rng.matrix(batch * k, n) };
                let before = rng.matrix(batch * m, n);
                let mut out = before.clone();
                matmul(level, pool, batch, a.view(), b.view(), transposed, out.view_mut());
                out.check(&before, 2e-5, &format!("{level:?} {batch} {m}x{n}x{k} {transposed}"), |r, c| {
                    let image = r / m;
                    (0..k)
                        .map(|i| {
                            let y = if transposed { b.at(image * n + c, i) } else { b.at(image * k + i, c) };
                            a.at(r, i) * y
                        })
                        .sum()
                });
            }
        });
    }
}
