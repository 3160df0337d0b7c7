//! Operations along the last dimension: softmax, layer normalisation, reductions.
use super::elementwise::{ForRows, by_rows};
use super::epilogue::Act;
use super::view::{View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd, math};

/// Elements below which a chunk is not worth a dispatch of its own.
const MIN_ELEMENTS: usize = 4 * 1024;

/// `body` for the vectors of a row of `len`: `n` elements from `i`, all full but perhaps the last.
macro_rules! vectors {
    ($S:ident, $len:expr, |$i:ident, $n:ident| $body:expr) => {{
        let mut $i = 0;
        while $i + $S::LANES <= $len {
            let $n = $S::LANES;
            $body;
            $i += $S::LANES;
        }
        if $i < $len {
            let $n = $len - $i;
            $body;
        }
    }};
}

/// # Safety
/// `n` elements behind `p`, or `S::LANES`.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(p: *const f32, n: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { if n == S::LANES { S::load(p) } else { S::load_n(p, n) } }
}

/// # Safety
/// `n` writable elements behind `p`.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(p: *mut f32, v: S::V, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { if n == S::LANES { S::store(p, v) } else { S::store_n(p, v, n) } }
}

/// The largest of `n > 0` elements.
///
/// # Safety
/// `n` elements behind `x`.
#[inline(always)]
pub(crate) unsafe fn max_of<S: Simd>(x: *const f32, n: usize) -> f32 {
    // SAFETY: the caller's promise; a short row's vector is filled up with its first element.
    unsafe {
        let mut m = S::splat(*x);
        let mut i = 0;
        while i + S::LANES <= n {
            m = S::max(S::load(x.add(i)), m);
            i += S::LANES;
        }
        if i < n && n >= S::LANES {
            // The last full vector overlaps: a maximum may count an element twice.
            m = S::max(S::load(x.add(n - S::LANES)), m);
            i = n;
        }
        let mut best = S::reduce_max(m);
        while i < n {
            let v = *x.add(i);
            if v > best {
                best = v;
            }
            i += 1;
        }
        best
    }
}

/// Softmax over the last dimension. `out` may be the memory of `x`.
pub fn softmax(level: Level, pool: &Pool, x: View, out: ViewMut) {
    assert_eq!((x.rows(), x.cols()), (out.rows(), out.cols()), "input and output sizes");
    if x.cols() == 0 {
        return;
    }
    by_rows(pool, x.rows(), x.cols(), MIN_ELEMENTS, |range| {
        let row = |r| SoftmaxRow {
            x: x.ptr().wrapping_add(r * x.pitch()),
            y: out.ptr().wrapping_add(r * out.pitch()),
            n: out.cols(),
        };
        // SAFETY: rows are inside both views, and each is written by one chunk.
        unsafe { level.dispatch(ForRows { rows: range, kernel: row }) };
    });
}

/// The softmax of one row.
pub(super) struct SoftmaxRow {
    pub x: *const f32,
    pub y: *mut f32,
    pub n: usize,
}

impl Kernel for SoftmaxRow {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let SoftmaxRow { x, y, n: len } = self;
        // SAFETY: `len` elements behind both pointers.
        unsafe {
            let top = S::splat(max_of::<S>(x, len));
            let mut sum = S::zero();
            vectors!(S, len, |i, n| {
                let e = math::exp::<S>(S::sub(load::<S>(x.add(i), n), top));
                store::<S>(y.add(i), e, n);
                // Read back, so that the lanes past the end count as zero.
                sum = S::add(sum, if n == S::LANES { e } else { S::load_n(y.add(i), n) });
            });
            let scale = S::splat(1.0 / S::reduce_add(sum));
            vectors!(S, len, |i, n| store::<S>(y.add(i), S::mul(load::<S>(y.add(i), n), scale), n));
        }
    }
}

/// What [`layer_norm`] does beside normalising.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Scale per column.
    pub gamma: &'a [f32],
    /// Shift per column.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// Applied last.
    pub act: Act,
}

/// `s = x + residual; out = act((s - mean(s)) / √(var(s) + eps) · gamma + beta)` over the last dimension.
/// `sum_out`, if given, receives `s`. `out` and `sum_out` may each be the memory of `x` or of `residual`.
pub fn layer_norm(
    level: Level,
    pool: &Pool,
    x: View,
    residual: Option<View>,
    norm: LayerNorm,
    sum_out: Option<ViewMut>,
    out: ViewMut,
) {
    let cols = x.cols();
    let size = (x.rows(), cols);
    assert_eq!(size, (out.rows(), out.cols()), "input and output sizes");
    assert_eq!((norm.gamma.len(), norm.beta.len()), (cols, cols), "gamma and beta of {cols} columns");
    if let Some(r) = &residual {
        assert_eq!(size, (r.rows(), r.cols()), "residual and output sizes");
    }
    if let Some(s) = &sum_out {
        assert_eq!(size, (s.rows(), s.cols()), "sum and output sizes");
    }
    if cols == 0 {
        return;
    }
    by_rows(pool, x.rows(), cols, MIN_ELEMENTS, |range| {
        let row = |i| {
            let write = |v: &ViewMut| v.ptr().wrapping_add(i * v.pitch());
            let read = |v: &View| v.ptr().wrapping_add(i * v.pitch());
            NormRow {
                x: read(&x),
                residual: residual.as_ref().map_or(std::ptr::null(), read),
                sum: sum_out.as_ref().map_or(std::ptr::null_mut(), write),
                y: write(&out),
                norm,
            }
        };
        // SAFETY: rows are inside all views, and each is written by one chunk.
        unsafe { level.dispatch(ForRows { rows: range, kernel: row }) };
    });
}

/// A row of [`layer_norm`]; a null residual or sum is left out.
pub(super) struct NormRow<'a> {
    pub x: *const f32,
    pub residual: *const f32,
    pub sum: *mut f32,
    pub y: *mut f32,
    pub norm: LayerNorm<'a>,
}

impl Kernel for NormRow<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let NormRow { x, residual, sum, y, norm } = self;
        let len = norm.gamma.len();
        // SAFETY: `len` elements behind each pointer that is not null.
        unsafe {
            let mut total = S::zero();
            let source = if residual.is_null() && sum.is_null() {
                vectors!(S, len, |i, n| total = S::add(total, load::<S>(x.add(i), n)));
                x
            } else {
                let s = if sum.is_null() { y } else { sum };
                vectors!(S, len, |i, n| {
                    let mut v = load::<S>(x.add(i), n);
                    if !residual.is_null() {
                        v = S::add(v, load::<S>(residual.add(i), n));
                    }
                    store::<S>(s.add(i), v, n);
                    total = S::add(total, v);
                });
                s.cast_const()
            };
            let mean = S::reduce_add(total) / len as f32;
            let center = S::splat(mean);
            let mut squares = S::zero();
            let mut i = 0;
            while i + S::LANES <= len {
                let d = S::sub(S::load(source.add(i)), center);
                squares = S::fma(d, d, squares);
                i += S::LANES;
            }
            let mut rest = 0.0;
            while i < len {
                let d = *source.add(i) - mean;
                rest += d * d;
                i += 1;
            }
            let variance = (S::reduce_add(squares) + rest) / len as f32;
            let scale = S::splat(1.0 / (variance + norm.eps).sqrt());
            let (gamma, beta) = (norm.gamma.as_ptr(), norm.beta.as_ptr());
            vectors!(S, len, |i, n| {
                let d = S::mul(S::sub(load::<S>(source.add(i), n), center), scale);
                let v = S::fma(d, load::<S>(gamma.add(i), n), load::<S>(beta.add(i), n));
                store::<S>(y.add(i), norm.act.apply::<S>(v), n);
            });
        }
    }
}

/// A reduction over the last dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The largest element
    Max,
    /// The sum
    Sum,
    /// The sum over the number of columns
    Mean,
}

/// `out[R, 1] = f(x[R, C])` along each row.
pub fn reduce(level: Level, pool: &Pool, f: Reduce, x: View, out: ViewMut) {
    assert_eq!((x.rows(), 1), (out.rows(), out.cols()), "one output for each input row");
    assert!(x.cols() > 0 || x.rows() == 0, "a reduction of no columns");
    by_rows(pool, x.rows(), x.cols(), MIN_ELEMENTS, |range| {
        let row = |r| ReduceRow {
            f,
            x: x.ptr().wrapping_add(r * x.pitch()),
            n: x.cols(),
            y: out.ptr().wrapping_add(r * out.pitch()),
        };
        // SAFETY: rows are inside both views, and each is written by one chunk.
        unsafe { level.dispatch(ForRows { rows: range, kernel: row }) };
    });
}

struct ReduceRow {
    f: Reduce,
    x: *const f32,
    n: usize,
    y: *mut f32,
}

impl Kernel for ReduceRow {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: `n` elements behind `x`, one behind `y`.
        unsafe {
            *self.y = if self.f == Reduce::Max {
                max_of::<S>(self.x, self.n)
            } else {
                let mut sum = S::zero();
                vectors!(S, self.n, |i, n| sum = S::add(sum, load::<S>(self.x.add(i), n)));
                let sum = S::reduce_add(sum);
                if self.f == Reduce::Mean { sum / self.n as f32 } else { sum }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, act64, everywhere};

    #[test]
    fn softmax_agrees_with_f64() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..60 {
                let (r, c) = (rng.size(1, 200), rng.size(1, 200));
                let mut x = rng.matrix(r, c);
                x.data.iter_mut().for_each(|v| *v *= 20.0);
                let before = rng.matrix(r, c);
                let mut out = before.clone();
                softmax(level, pool, x.view(), out.view_mut());
                out.check(&before, 1e-6, &format!("{level:?} {r}x{c}"), |i, j| {
                    let top = (0..c).map(|k| x.at(i, k)).fold(f64::MIN, f64::max);
                    let sum: f64 = (0..c).map(|k| (x.at(i, k) - top).exp()).sum();
                    (x.at(i, j) - top).exp() / sum
                });
            }
        });
    }

    #[test]
    fn layer_norm_agrees_with_f64() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..60 {
                let (r, c) = (rng.size(1, 100), rng.size(2, 330));
                let mut x = rng.matrix(r, c);
                // The norm of elements that are all but equal is that of their rounding.
                (0..r).for_each(|row| x.data[row * x.pitch] += 6.0);
                let residual = rng.coin().then(|| rng.matrix(r, c));
                let (gamma, beta) = (rng.vec(c), rng.vec(c));
                let act = rng.of(&[Act::None, Act::Gelu]);
                let norm = LayerNorm { gamma: &gamma, beta: &beta, eps: 1e-5, act };
                let (before, sum_before) = (rng.matrix(r, c), rng.matrix(r, c));
                let (mut out, mut sum) = (before.clone(), sum_before.clone());
                let keep = rng.coin();
                layer_norm(
                    level,
                    pool,
                    x.view(),
                    residual.as_ref().map(|r| r.view()),
                    norm,
                    keep.then(|| sum.view_mut()),
                    out.view_mut(),
                );
                let s = |i, j| x.at(i, j) + residual.as_ref().map_or(0.0, |m| m.at(i, j));
                let what = format!("{level:?} {r}x{c}");
                if keep {
                    sum.check(&sum_before, 1e-7, &what, s);
                }
                out.check(&before, 5e-6, &what, |i, j| {
                    let mean = (0..c).map(|k| s(i, k)).sum::<f64>() / c as f64;
                    let var = (0..c).map(|k| (s(i, k) - mean).powi(2)).sum::<f64>() / c as f64;
                    act64(act, (s(i, j) - mean) / (var + 1e-5).sqrt() * gamma[j] as f64 + beta[j] as f64)
                });
            }
        });
    }

    #[test]
    fn reductions_agree_with_f64() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..60 {
                let (r, c) = (rng.size(1, 200), rng.size(1, 200));
                let x = rng.matrix(r, c);
                let f = rng.of(&[Reduce::Max, Reduce::Sum, Reduce::Mean]);
                let before = rng.matrix(r, 1);
                let mut out = before.clone();
                reduce(level, pool, f, x.view(), out.view_mut());
                out.check(&before, 1e-5, &format!("{level:?} {f:?} {r}x{c}"), |i, _| {
                    let row = (0..c).map(|k| x.at(i, k));
                    match f {
                        Reduce::Max => row.fold(f64::MIN, f64::max),
                        Reduce::Sum => row.sum(),
                        Reduce::Mean => row.sum::<f64>() / c as f64,
                    }
                });
            }
        });
    }
}
