//! Vector instructions behind one trait.
//!
//! A kernel is a struct that implements `Kernel`: its `run` is written once, generic over `S: Simd`.
//! `Level::dispatch` calls it inside a function compiled for the instruction set, into which everything
//! marked `#[inline(always)]` folds.
#![allow(unsafe_code)]
// Lanes are indexed in several arrays at once.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::sync::OnceLock;

/// An instruction set that kernels can be run with. Ordered: later is wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust on `[f32; 8]`, which the compiler vectorises as far as the target's baseline allows.
    Portable,
    /// aarch64 NEON, 4 lanes.
    Neon,
    /// x86-64 AVX2 and FMA, 8 lanes.
    Avx2,
    /// x86-64 AVX-512 F/BW/DQ/VL, 16 lanes.
    Avx512,
}

impl Level {
    /// Every level, narrowest first.
    pub const ALL: [Level; 4] = [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512];

    /// The widest level of this processor. The environment variable `ULTRAMOTION_SIMD`
    /// (`avx512`, `avx2`, `neon` or `portable`) lowers it; a value that the processor lacks is ignored.
    /// Looked up once per process.
    pub fn detect() -> Level {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let wish = std::env::var("ULTRAMOTION_SIMD").ok();
            let asked = wish.and_then(|w| Level::ALL.into_iter().find(|l| l.name() == w.trim()));
            asked.filter(|l| l.is_available()).unwrap_or_else(|| {
                *Level::available().last().expect("the portable level is always available")
            })
        })
    }

    /// The levels that this processor can run, narrowest first.
    pub fn available() -> Vec<Level> {
        Level::ALL.into_iter().filter(|l| l.is_available()).collect()
    }

    /// Whether this processor can run the level.
    pub fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                Level::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The name used by `ULTRAMOTION_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// f32 lanes of a vector.
    pub fn lanes(self) -> usize {
        match self {
            Level::Portable | Level::Avx2 => 8,
            Level::Neon => 4,
            Level::Avx512 => 16,
        }
    }

    /// Runs a kernel compiled for this level. Panics if the processor lacks it.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    #[inline]
    pub(crate) unsafe fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        // The standard library caches what it detected: a few loads.
        assert!(self.is_available(), "this processor has no {}", self.name());
        // SAFETY: the caller's promise. The processor has the level, so its type may be named.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => <avx512::Avx512 as Simd>::vectorize(kernel),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => <avx2::Avx2 as Simd>::vectorize(kernel),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => <neon::Neon as Simd>::vectorize(kernel),
                _ => <portable::Portable as Simd>::vectorize(kernel),
            }
        }
    }

    /// Rows and vectors of the widest register tile of this level.
    pub(crate) fn tile(self) -> (usize, usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => (<avx512::Avx512 as Simd>::MR, <avx512::Avx512 as Simd>::NV),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => (<avx2::Avx2 as Simd>::MR, <avx2::Avx2 as Simd>::NV),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => (<neon::Neon as Simd>::MR, <neon::Neon as Simd>::NV),
            _ => (<portable::Portable as Simd>::MR, <portable::Portable as Simd>::NV),
        }
    }
}

/// A computation written once over any vector width.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// The computation. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The pointers that the kernel holds are good for what it documents.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Vectors of f32 of one instruction set. The type is a token: only this module can name one, and does so after a look at the
/// processor, so that whoever is generic over `S: Simd` runs where the instructions are.
///
/// Loads and stores need valid pointers (any alignment). `load_n` and `store_n` touch only the first `n` elements.
///
/// # Safety
/// The type is private to this module, and named by [`Level::dispatch`] only where the processor has its instructions.
#[allow(clippy::missing_safety_doc)]
pub(crate) unsafe trait Simd: Copy + 'static {
    /// Elements of a vector.
    const LANES: usize;
    /// Rows of the matrix product's register tile.
    const MR: usize;
    /// Vectors of a row of the matrix product's register tile.
    const NV: usize;
    /// A vector.
    type V: Copy;

    /// Runs `kernel` in a function compiled for this instruction set. The caller keeps what [`Kernel::run`] asks for.
    unsafe fn vectorize<K: Kernel>(kernel: K) -> K::Output;

    fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `n <= LANES` elements; the rest are zero and not touched.
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V;
    /// Writes the first `n <= LANES` elements.
    unsafe fn store_n(p: *mut f32, v: Self::V, n: usize);

    fn add(a: Self::V, b: Self::V) -> Self::V;
    fn sub(a: Self::V, b: Self::V) -> Self::V;
    fn mul(a: Self::V, b: Self::V) -> Self::V;
    fn div(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; the second operand if either is NaN.
    fn min(a: Self::V, b: Self::V) -> Self::V;
    /// The larger; the second operand if either is NaN.
    fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the instruction set can.
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    fn nfma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(a: Self::V) -> Self::V;
    fn sqrt(a: Self::V) -> Self::V;
    fn abs(a: Self::V) -> Self::V;
    /// `2^n` of an integral `n` in `[-126, 127]`.
    fn pow2i(n: Self::V) -> Self::V;
    /// `x · 2^n` of an integral `n`; 0 below the normal numbers is allowed, and 2^127 for larger powers.
    #[inline(always)]
    fn ldexp(x: Self::V, n: Self::V) -> Self::V {
        let lowest = Self::splat(-126.0);
        let bounded = Self::min(Self::splat(127.0), Self::max(lowest, n));
        let y = Self::mul(x, Self::pow2i(bounded));
        Self::select_lt(n, lowest, Self::zero(), y)
    }
    /// Lane by lane `a < b ? t : f`.
    fn select_lt(a: Self::V, b: Self::V, t: Self::V, f: Self::V) -> Self::V;
    fn reduce_add(a: Self::V) -> f32;
    fn reduce_max(a: Self::V) -> f32;

    /// Transposes a block of `LANES` by `LANES` elements; pitches are from row to row.
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_pitch: usize, dst: *mut f32, dst_pitch: usize) {
        for r in 0..Self::LANES {
            for c in 0..Self::LANES {
                // SAFETY: the caller's promise: a block behind each pointer.
                unsafe { *dst.add(c * dst_pitch + r) = *src.add(r * src_pitch + c) };
            }
        }
    }

    /// Asks for the cache line of an address that will be read, or written if `WRITE`. Any address will do.
    #[inline(always)]
    fn prefetch<const WRITE: bool>(p: *const f32) {
        // SAFETY: prefetches touch nothing; AVX2 processors know PREFETCHW or take it for a no-op.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            if const { WRITE && Self::MR > 4 } {
                std::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
            } else {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }

    #[inline(always)]
    fn zero() -> Self::V {
        Self::splat(0.0)
    }
}

/// Defines `vectorize` for an instruction set: the one place where target features are switched on.
macro_rules! vectorize_with {
    ($($feature:literal),*) => {
        #[inline(always)]
        unsafe fn vectorize<K: super::Kernel>(kernel: K) -> K::Output {
            $(#[target_feature(enable = $feature)])*
            unsafe fn inside<S: super::Simd, K: super::Kernel>(kernel: K) -> K::Output {
                // SAFETY: the caller's promise.
                unsafe { kernel.run::<S>() }
            }
            // SAFETY: the type is the proof that the processor has these features; the rest is the caller's promise.
            unsafe { inside::<Self, K>(kernel) }
        }
    };
}
use vectorize_with;

/// Defines operations that are safe for any values.
macro_rules! operations {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty { $($body:tt)* })*) => {$(
        #[inline(always)]
        // Where a build's target has the instructions anyway, calls are safe as they are.
        #[allow(unused_unsafe)]
        fn $name($($arg: $ty),*) -> $out {
            // SAFETY: the type is the proof that the processor has the instructions, and they touch no memory.
            unsafe { $($body)* }
        }
    )*};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use operations;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_portable_is_always_there() {
        assert!(Level::available().contains(&Level::Portable));
        assert!(Level::detect().is_available());
        for l in Level::ALL {
            assert_eq!(Level::ALL.into_iter().find(|m| m.name() == l.name()), Some(l));
        }
    }

    struct Primitives;
    impl Kernel for Primitives {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let a: Vec<f32> = (0..S::LANES).map(|i| i as f32 * 0.75 - 3.5).collect();
            let b: Vec<f32> = (0..S::LANES).map(|i| 2.25 - i as f32 * 0.5).collect();
            // SAFETY: vectors of LANES elements.
            unsafe {
                let (va, vb) = (S::load(a.as_ptr()), S::load(b.as_ptr()));
                let out = |v: S::V| {
                    let mut o = vec![0f32; S::LANES];
                    S::store(o.as_mut_ptr(), v);
                    o
                };
                let each = |f: &dyn Fn(f32, f32) -> f32| -> Vec<f32> {
                    a.iter().zip(&b).map(|(&x, &y)| f(x, y)).collect()
                };
                assert_eq!(out(S::add(va, vb)), each(&|x, y| x + y));
                assert_eq!(out(S::sub(va, vb)), each(&|x, y| x - y));
                assert_eq!(out(S::mul(va, vb)), each(&|x, y| x * y));
                assert_eq!(out(S::div(va, vb)), each(&|x, y| x / y));
                assert_eq!(out(S::min(va, vb)), each(&f32::min));
                assert_eq!(out(S::max(va, vb)), each(&f32::max));
                assert_eq!(out(S::fma(va, vb, va)), each(&|x, y| x * y + x));
                assert_eq!(out(S::nfma(va, vb, va)), each(&|x, y| x - x * y));
                assert_eq!(out(S::round(va)), each(&|x, _| x.round_ties_even()));
                assert_eq!(out(S::abs(va)), each(&|x, _| x.abs()));
                assert_eq!(out(S::sqrt(S::abs(va))), each(&|x, _| x.abs().sqrt()));
                assert_eq!(out(S::pow2i(S::round(va))), each(&|x, _| x.round_ties_even().exp2()));
                assert_eq!(out(S::ldexp(vb, S::round(va))), each(&|x, y| y * x.round_ties_even().exp2()));
                assert!(out(S::ldexp(va, S::splat(-300.0))).iter().all(|&x| x == 0.0));
                assert_eq!(out(S::select_lt(va, vb, va, vb)), each(&|x, y| if x < y { x } else { y }));
                assert_eq!(S::reduce_add(va), a.iter().sum::<f32>());
                assert_eq!(S::reduce_max(va), a.iter().copied().fold(f32::MIN, f32::max));
                for n in 0..=S::LANES {
                    let mut want = vec![0f32; S::LANES];
                    want[..n].copy_from_slice(&a[..n]);
                    // Buffers of exactly n elements: touching more would be out of bounds.
                    let exact = a[..n].to_vec().into_boxed_slice();
                    assert_eq!(out(S::load_n(exact.as_ptr(), n)), want);
                    let mut got = vec![7f32; S::LANES];
                    S::store_n(got.as_mut_ptr(), va, n);
                    assert_eq!(got[..n], a[..n]);
                    assert!(got[n..].iter().all(|&x| x == 7.0));
                }
                let (n, pitch) = (S::LANES, S::LANES + 3);
                let src: Vec<f32> = (0..n * pitch).map(|i| i as f32).collect();
                let mut dst = vec![-1f32; n * (n + 1)];
                S::transpose(src.as_ptr(), pitch, dst.as_mut_ptr(), n + 1);
                for r in 0..n {
                    for c in 0..n {
                        assert_eq!(dst[c * (n + 1) + r], src[r * pitch + c]);
                    }
                    assert_eq!(dst[r * (n + 1) + n], -1.0);
                }
                let nan = S::splat(f32::NAN);
                assert!(out(S::max(S::zero(), nan)).iter().all(|x| x.is_nan()));
            }
        }
    }

    #[test]
    fn primitives_agree_with_scalars_on_every_level() {
        for level in Level::available() {
            // SAFETY: it holds no pointers.
            unsafe { level.dispatch(Primitives) };
        }
    }
}
