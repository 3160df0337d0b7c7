//! Linear layers and 1x1 convolutions: `out[M, N] = x[M, K] · Wᵀ`, with a fused epilogue.
use super::epilogue::Epilogue;
use super::panels::Panels;
use super::tile::{Grid, Residual, product};
use super::view::{Element, View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::Level;
use crate::error::OutOfMemory;

/// The weights of a linear layer, packed for one SIMD level.
pub struct PackedLinear<W: Element = f32> {
    pub(crate) panels: Panels<W>,
}

impl<W: Element> PackedLinear<W> {
    /// `weight`: `[n, k]` as PyTorch's `nn.Linear` (and a 1x1 `nn.Conv2d`) stores it.
    ///
    /// # Errors
    /// [`OutOfMemory`] where there is no memory for them.
    pub fn new(
        level: Level,
        weight: &[W],
        n: usize,
        k: usize,
        epilogue: Epilogue,
    ) -> Result<Self, OutOfMemory> {
        assert_eq!(weight.len(), n * k, "a weight of {} elements for [{n}, {k}]", weight.len());
        Ok(PackedLinear { panels: Panels::new(level, n, k, &epilogue, |c, i| weight[c * k + i])? })
    }

    /// As [`PackedLinear::new`], from a weight stored `[k, n]`.
    ///
    /// # Errors
    /// As [`PackedLinear::new`].
    pub fn from_transposed(
        level: Level,
        weight: &[W],
        n: usize,
        k: usize,
        epilogue: Epilogue,
    ) -> Result<Self, OutOfMemory> {
        assert_eq!(weight.len(), n * k, "a weight of {} elements for [{k}, {n}]", weight.len());
        Ok(PackedLinear { panels: Panels::new(level, n, k, &epilogue, |c, i| weight[i * n + c])? })
    }

    /// Output columns.
    pub fn n(&self) -> usize {
        self.panels.n
    }
    /// Input columns.
    pub fn k(&self) -> usize {
        self.panels.k
    }
    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }
}

/// `out[M, N] = epilogue(x[M, K] · Wᵀ)`. The residual is `[M, N]` and may be the memory of `out`.
pub fn linear(pool: &Pool, x: View, weight: &PackedLinear, residual: Option<View>, out: ViewMut) {
    let p = &weight.panels;
    assert_eq!(x.cols(), p.k, "the input has {} columns, the weight takes {}", x.cols(), p.k);
    assert_eq!(out.cols(), p.n, "the output has {} columns, the weight gives {}", out.cols(), p.n);
    assert_eq!(out.rows(), x.rows(), "output and input rows");
    let residual = residual_of(residual, &out);
    // SAFETY: the views are checked; tiles cut the rows without overlap.
    unsafe { product(pool, &Grid::matrix(x, p.level), p, residual, out.ptr(), out.pitch()) }
}

/// Checks a residual against the output it is added to.
#[track_caller]
pub(crate) fn residual_of(residual: Option<View>, out: &ViewMut) -> Option<Residual> {
    residual.map(|r| {
        assert_eq!((r.rows(), r.cols()), (out.rows(), out.cols()), "residual and output sizes");
        Residual { ptr: r.ptr(), pitch: r.pitch() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, epilogue64, everywhere, same_layout};

    #[test]
    fn linear_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for case in 0..60 {
                let m = if case < 30 { rng.size(1, 40) } else { rng.size(1, 700) };
                let (n, k) = (rng.size(1, 100), rng.size(1, 120));
                let (x, w, e) = (rng.matrix(m, k), rng.vec(n * k), rng.epilogue(n));
                let residual = rng.coin().then(|| rng.matrix(m, n));
                let before = rng.matrix(m, n);
                let mut out = before.clone();
                let packed = PackedLinear::new(level, &w, n, k, e.clone()).unwrap();
                linear(pool, x.view(), &packed, residual.as_ref().map(|r| r.view()), out.view_mut());
                out.check(&before, 2e-6 * (k as f64).sqrt(), &format!("{level:?} {m}x{n}x{k}"), |r, c| {
                    let sum: f64 = (0..k).map(|i| x.at(r, i) * w[c * k + i] as f64).sum();
                    epilogue64(&e, sum, c, residual.as_ref().map(|m| m.at(r, c)))
                });
            }
        });
    }

    #[test]
    fn weights_of_any_element_lie_alike() {
        let mut rng = Rng::seeded();
        for level in Level::available() {
            let (n, k, none) = (rng.size(1, 90), rng.size(1, 30), Epilogue::default);
            let (weight, floats) = rng.bytes(n * k);
            let packed = PackedLinear::new(level, &weight, n, k, none()).unwrap();
            same_layout(&packed.panels, &PackedLinear::new(level, &floats, n, k, none()).unwrap().panels);
            let packed = PackedLinear::from_transposed(level, &weight, n, k, none()).unwrap();
            same_layout(
                &packed.panels,
                &PackedLinear::from_transposed(level, &floats, n, k, none()).unwrap().panels,
            );
        }
    }

    #[test]
    fn a_residual_may_be_the_output_and_a_weight_may_be_transposed() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            let (m, n, k) = (rng.size(1, 200), rng.size(1, 70), rng.size(1, 50));
            let (x, w, e) = (rng.matrix(m, k), rng.vec(n * k), rng.epilogue(n));
            let before = rng.matrix(m, n);
            let mut out = before.clone();
            let packed = PackedLinear::from_transposed(level, &w, n, k, e.clone()).unwrap();
            let mut view = out.view_mut();
            let (ptr, rows, cols, pitch) = (view.ptr(), view.rows(), view.cols(), view.pitch());
            // SAFETY: the kernel reads each element before it writes it.
            let residual = unsafe { View::from_raw(ptr, rows, cols, pitch) };
            linear(pool, x.view(), &packed, Some(residual), view.reborrow());
            out.check(&before, 2e-5, &format!("{level:?} {m}x{n}x{k}"), |r, c| {
                let sum: f64 = (0..k).map(|i| x.at(r, i) * w[i * n + c] as f64).sum();
                epilogue64(&e, sum, c, Some(before.at(r, c)))
            });
        });
    }
}
