//! aarch64 NEON: 4 lanes, 32 registers.
use super::{Simd, operations, vectorize_with};
use std::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(super) struct Neon;

// SAFETY: NEON is part of the aarch64 baseline. Of every block: that, and valid pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Simd for Neon {
    const LANES: usize = 4;
    const MR: usize = 12;
    const NV: usize = 2;
    type V = float32x4_t;

    vectorize_with!("neon");

    operations! {
        fn splat(x: f32) -> float32x4_t { vdupq_n_f32(x) }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        fn nfma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmsq_f32(c, a, b) }
        fn round(a: float32x4_t) -> float32x4_t { vrndnq_f32(a) }
        fn sqrt(a: float32x4_t) -> float32x4_t { vsqrtq_f32(a) }
        fn abs(a: float32x4_t) -> float32x4_t { vabsq_f32(a) }
        fn pow2i(n: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127))))
        }
        fn select_lt(a: float32x4_t, b: float32x4_t, t: float32x4_t, f: float32x4_t) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), t, f)
        }
        fn reduce_add(a: float32x4_t) -> f32 { vaddvq_f32(a) }
        fn reduce_max(a: float32x4_t) -> f32 { vmaxvq_f32(a) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> float32x4_t {
        debug_assert!(n <= 4);
        let mut lanes = [0f32; 4];
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: float32x4_t, n: usize) {
        debug_assert!(n <= 4);
        let mut lanes = [0f32; 4];
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
}
