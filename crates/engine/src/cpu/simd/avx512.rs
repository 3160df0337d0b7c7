//! AVX-512: 16 lanes, 32 registers, masks.
use super::{Simd, operations, vectorize_with};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

// SAFETY: private to `simd`, where it is named if the processor has AVX-512. Of every block: that, and valid pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Simd for Avx512 {
    const LANES: usize = 16;
    const MR: usize = 12;
    const NV: usize = 2;
    type V = __m512;

    vectorize_with!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma");

    operations! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn nfma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn round(a: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        fn sqrt(a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn pow2i(n: __m512) -> __m512 {
            let e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(e))
        }
        fn ldexp(x: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(x, n) }
        fn select_lt(a: __m512, b: __m512, t: __m512, f: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), f, t)
        }
        fn reduce_add(a: __m512) -> f32 { _mm512_reduce_add_ps(a) }
        fn reduce_max(a: __m512) -> f32 { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(n), p) }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, mask(n), v) }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_pitch: usize, dst: *mut f32, dst_pitch: usize) {
        unsafe {
            let mut u = [_mm512_setzero_ps(); 16];
            for g in 0..4 {
                // Four rows: u[4g + j] holds, in each quarter L, their elements of column 4L + j.
                let row = |i: usize| _mm512_loadu_ps(src.add((4 * g + i) * src_pitch));
                let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
                let low = |a, b| _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let high = |a, b| _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let (t0, t1, t2, t3) = (low(r0, r1), high(r0, r1), low(r2, r3), high(r2, r3));
                u[4 * g] = _mm512_castpd_ps(_mm512_unpacklo_pd(t0, t2));
                u[4 * g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(t0, t2));
                u[4 * g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(t1, t3));
                u[4 * g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(t1, t3));
            }
            for j in 0..4 {
                // Quarters of four vectors, transposed.
                let (a, b, c, d) = (u[j], u[4 + j], u[8 + j], u[12 + j]);
                let ab = _mm512_shuffle_f32x4::<0x44>(a, b);
                let cd = _mm512_shuffle_f32x4::<0x44>(c, d);
                let ab_high = _mm512_shuffle_f32x4::<0xee>(a, b);
                let cd_high = _mm512_shuffle_f32x4::<0xee>(c, d);
                let to = |column: usize| dst.add(column * dst_pitch);
                _mm512_storeu_ps(to(j), _mm512_shuffle_f32x4::<0x88>(ab, cd));
                _mm512_storeu_ps(to(4 + j), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
                _mm512_storeu_ps(to(8 + j), _mm512_shuffle_f32x4::<0x88>(ab_high, cd_high));
                _mm512_storeu_ps(to(12 + j), _mm512_shuffle_f32x4::<0xdd>(ab_high, cd_high));
            }
        }
    }
}
