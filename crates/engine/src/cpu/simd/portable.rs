//! Plain Rust on arrays of 8: always there, and what the other levels are tested beside.
use super::{Simd, vectorize_with};

#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Aligned so that the compiler may keep it in two 128-bit registers.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct F8([f32; 8]);

#[inline(always)]
fn map(a: F8, f: impl Fn(f32) -> f32) -> F8 {
    let mut o = [0f32; 8];
    for i in 0..8 {
        o[i] = f(a.0[i]);
    }
    F8(o)
}
#[inline(always)]
fn zip(a: F8, b: F8, f: impl Fn(f32, f32) -> f32) -> F8 {
    let mut o = [0f32; 8];
    for i in 0..8 {
        o[i] = f(a.0[i], b.0[i]);
    }
    F8(o)
}

// SAFETY: needs no instructions. Of every block: valid pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Simd for Portable {
    const LANES: usize = 8;
    const MR: usize = 4;
    const NV: usize = 1;
    type V = F8;

    vectorize_with!();

    #[inline(always)]
    fn splat(x: f32) -> F8 {
        F8([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F8 {
        F8(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F8) {
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> F8 {
        debug_assert!(n <= 8);
        let mut o = [0f32; 8];
        unsafe { std::ptr::copy_nonoverlapping(p, o.as_mut_ptr(), n) };
        F8(o)
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: F8, n: usize) {
        debug_assert!(n <= 8);
        unsafe { std::ptr::copy_nonoverlapping(v.0.as_ptr(), p, n) }
    }
    #[inline(always)]
    fn add(a: F8, b: F8) -> F8 {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(a: F8, b: F8) -> F8 {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(a: F8, b: F8) -> F8 {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(a: F8, b: F8) -> F8 {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn min(a: F8, b: F8) -> F8 {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(a: F8, b: F8) -> F8 {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    // Not `f32::mul_add`: without the instruction that is a slow library call.
    #[inline(always)]
    fn fma(a: F8, b: F8, c: F8) -> F8 {
        zip(zip(a, b, |x, y| x * y), c, |x, y| x + y)
    }
    #[inline(always)]
    fn nfma(a: F8, b: F8, c: F8) -> F8 {
        zip(c, zip(a, b, |x, y| x * y), |x, y| x - y)
    }
    #[inline(always)]
    fn round(a: F8) -> F8 {
        // Adding and taking away 1.5 * 2^23 leaves the nearest integer; larger magnitudes are integers.
        const SHIFT: f32 = 12_582_912.0;
        map(a, |x| if x.abs() < 4_194_304.0 { (x + SHIFT) - SHIFT } else { x })
    }
    #[inline(always)]
    fn sqrt(a: F8) -> F8 {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn abs(a: F8) -> F8 {
        map(a, f32::abs)
    }
    #[inline(always)]
    fn pow2i(n: F8) -> F8 {
        map(n, |x| f32::from_bits((((x as i32) + 127) as u32) << 23))
    }
    #[inline(always)]
    fn select_lt(a: F8, b: F8, t: F8, f: F8) -> F8 {
        let mut o = [0f32; 8];
        for i in 0..8 {
            o[i] = if a.0[i] < b.0[i] { t.0[i] } else { f.0[i] };
        }
        F8(o)
    }
    #[inline(always)]
    fn reduce_add(a: F8) -> f32 {
        let v = a.0;
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn reduce_max(a: F8) -> f32 {
        a.0.iter().copied().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
}
