//! Vector exp, tanh, sigmoid, GELU: polynomials fitted by weighted least squares towards the minimax.
use super::Simd;

#[inline(always)]
fn horner<S: Simd, const N: usize>(coefficients: &[f32; N], x: S::V) -> S::V {
    let mut p = S::splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        p = S::fma(p, x, S::splat(coefficients[i]));
    }
    p
}

/// `2^f` for `|f| <= 1/2`: relative error 1e-7 before rounding.
const EXP2: [f32; 6] = [1.0, 0.693_147_24, 0.240_222_35, 0.055_503_08, 0.009_671_897, 0.001_340_728_8];
/// `e^r` for `|r| <= ln 2 / 2`: the same polynomial.
const EXP: [f32; 6] = [1.0, 1.000_000_1, 0.499_991_35, 0.166_663_58, 0.041_899_595, 0.008_379_414];

/// `e^x`, to about 2 ulp; 0 below -104 at the latest, large but perhaps finite past the largest f32.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: S::V) -> S::V {
    // The bounds come first: max and min give their second operand, the data, when that is NaN. They
    // keep infinities from the remainder below.
    let x = S::min(S::splat(128.0), S::max(S::splat(-128.0), x));
    let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with so few bits that n times it is exact.
    let r = S::nfma(n, S::splat(0.693_359_4), x);
    let r = S::nfma(n, S::splat(-2.121_944_4e-4), r);
    S::ldexp(horner::<S, 6>(&EXP, r), n)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(x: S::V) -> S::V {
    let one = S::splat(1.0);
    S::div(one, S::add(one, exp::<S>(S::sub(S::zero(), x))))
}

/// Hyperbolic tangent, to a few ulp.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: S::V) -> S::V {
    // tanh x = x + x³·h(x²) for |x| < 0.625.
    const SMALL: [f32; 5] = [-0.333_332_78, 0.133_313_28, -0.053_729_23, 0.020_602, -0.005_660_780_7];

    let one = S::splat(1.0);
    let t = S::abs(x);
    let big = S::sub(one, S::div(S::splat(2.0), S::add(exp::<S>(S::add(t, t)), one)));
    let big = S::select_lt(x, S::zero(), S::sub(S::zero(), big), big);
    let u = S::mul(x, x);
    let small = S::fma(S::mul(horner::<S, 5>(&SMALL, u), u), x, x);
    S::select_lt(t, S::splat(0.625), small, big)
}

/// `x Φ(x)`, Φ the normal distribution (the erf form of GELU); absolute error below 5e-7.
///
/// With t = |x|: `gelu(x) = max(x, 0) - t · Q(t)`, Q the upper tail, whose base-2 logarithm is a
/// polynomial fitted with the weight `t · Q(t)`: no cancellation, one piece, one exponential.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(x: S::V) -> S::V {
    const LOG2_TAIL: [f32; 7] = [
        -0.999_999_1,
        -1.151_145,
        -0.458_934_8,
        -0.053_205_114,
        0.007_953_788,
        -7.323_238_5e-4,
        2.904_256_1e-5,
    ];

    let t = S::min(S::splat(12.0), S::abs(x));
    let y = horner::<S, 7>(&LOG2_TAIL, t);
    let n = S::round(y);
    let tail = S::ldexp(horner::<S, 6>(&EXP2, S::sub(y, n)), n);
    S::nfma(t, tail, S::max(S::zero(), x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{Kernel, Level};

    #[derive(Clone, Copy)]
    enum F {
        Exp,
        Sigmoid,
        Tanh,
        Gelu,
    }
    struct Map<'a>(F, &'a [f32], &'a mut [f32]);
    impl Kernel for Map<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for i in (0..self.1.len()).step_by(S::LANES) {
                let n = S::LANES.min(self.1.len() - i);
                // SAFETY: n elements from i are inside both slices.
                unsafe {
                    let x = S::load_n(self.1.as_ptr().add(i), n);
                    let y = match self.0 {
                        F::Exp => exp::<S>(x),
                        F::Sigmoid => sigmoid::<S>(x),
                        F::Tanh => tanh::<S>(x),
                        F::Gelu => gelu::<S>(x),
                    };
                    S::store_n(self.2.as_mut_ptr().add(i), y, n);
                }
            }
        }
    }

    fn apply(level: Level, f: F, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: slices of one length.
        unsafe { level.dispatch(Map(f, x, y)) }
    }

    /// erf by its series (small) or continued fraction (large), in f64.
    fn erf(x: f64) -> f64 {
        if x.abs() < 2.5 {
            let (mut term, mut sum) = (x, x);
            for n in 1..80 {
                term *= -x * x / n as f64;
                sum += term / (2 * n + 1) as f64;
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let mut f = 0.0;
            for k in (1..60).rev() {
                f = k as f64 / 2.0 / (x.abs() + f);
            }
            x.signum() * (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x.abs() + f))
        }
    }

    fn check(f: F, lo: f32, hi: f32, exact: impl Fn(f64) -> f64, absolute: f64, relative: f64) {
        let n = 200_003;
        let x: Vec<f32> = (0..n).map(|i| lo + (hi - lo) * i as f32 / n as f32).collect();
        for level in Level::available() {
            let mut y = vec![0f32; n];
            apply(level, f, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let want = exact(x as f64);
                let error = (y as f64 - want).abs();
                assert!(
                    error <= absolute + relative * want.abs(),
                    "{} f({x}) = {y}, not {want}",
                    level.name()
                );
            }
        }
    }

    #[test]
    fn functions_agree_with_f64() {
        check(F::Exp, -87.0, 88.0, f64::exp, 0.0, 2.5e-7);
        check(F::Exp, -1.0, 1.0, f64::exp, 0.0, 2.5e-7);
        check(F::Sigmoid, -30.0, 30.0, |x| 1.0 / (1.0 + (-x).exp()), 0.0, 3e-7);
        check(F::Tanh, -12.0, 12.0, f64::tanh, 0.0, 3e-7);
        let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
        check(F::Gelu, -12.0, 12.0, gelu, 5e-7, 1e-7);
        check(F::Gelu, -1.0, 1.0, gelu, 0.0, 1e-6);
    }

    #[test]
    fn extremes_stay_finite_and_nan_stays_nan() {
        let x = [-1e30f32, 1e30, f32::NEG_INFINITY, 0.0, f32::NAN];
        for level in Level::available() {
            let mut y = [0f32; 5];
            apply(level, F::Exp, &x, &mut y);
            assert_eq!((y[0], y[2], y[3]), (0.0, 0.0, 1.0));
            assert!(y[1] > 1e38 && y[4].is_nan());
            apply(level, F::Sigmoid, &x, &mut y);
            assert!(y[0] < 1e-37 && y[1] == 1.0 && y[3] == 0.5 && y[4].is_nan());
            apply(level, F::Tanh, &x, &mut y);
            assert_eq!((y[0], y[1], y[2], y[3]), (-1.0, 1.0, -1.0, 0.0));
            assert!(y[4].is_nan());
            apply(level, F::Gelu, &x, &mut y);
            assert!(y[0].abs() < 1e-30 && y[1] == 1e30 && y[3] == 0.0 && y[4].is_nan());
        }
    }
}
