//! AVX2 and FMA: 8 lanes, 16 registers.
use super::{Simd, operations, vectorize_with};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// Lanes below `n` set.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    static BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert!(n <= 8);
    // SAFETY: 8 elements from 8 - n, inside the 16; the caller has AVX2.
    unsafe { _mm256_loadu_si256(BITS.as_ptr().add(8 - n).cast()) }
}

// SAFETY: private to `simd`, where it is named if the processor has AVX2 and FMA. Of every block: that, and valid pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Simd for Avx2 {
    const LANES: usize = 8;
    const MR: usize = 6;
    const NV: usize = 2;
    type V = __m256;

    vectorize_with!("avx2", "fma");

    operations! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn nfma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        fn round(a: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        fn sqrt(a: __m256) -> __m256 { _mm256_sqrt_ps(a) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn pow2i(n: __m256) -> __m256 {
            let e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(e))
        }
        fn select_lt(a: __m256, b: __m256, t: __m256, f: __m256) -> __m256 {
            _mm256_blendv_ps(f, t, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        fn reduce_add(a: __m256) -> f32 {
            let h = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let h = _mm_add_ps(h, _mm_movehl_ps(h, h));
            _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)))
        }
        fn reduce_max(a: __m256) -> f32 {
            let h = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let h = _mm_max_ps(h, _mm_movehl_ps(h, h));
            _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)))
        }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(p, mask(n)) }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: __m256, n: usize) {
        unsafe { _mm256_maskstore_ps(p, mask(n), v) }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_pitch: usize, dst: *mut f32, dst_pitch: usize) {
        unsafe {
            let mut u = [_mm256_setzero_ps(); 8];
            for g in 0..2 {
                // Four rows: u[4g + j] holds, in each half L, their elements of column 4L + j.
                let row = |i: usize| _mm256_loadu_ps(src.add((4 * g + i) * src_pitch));
                let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
                let low = |a, b| _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                let high = |a, b| _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
                let (t0, t1, t2, t3) = (low(r0, r1), high(r0, r1), low(r2, r3), high(r2, r3));
                u[4 * g] = _mm256_castpd_ps(_mm256_unpacklo_pd(t0, t2));
                u[4 * g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(t0, t2));
                u[4 * g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(t1, t3));
                u[4 * g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(t1, t3));
            }
            for j in 0..4 {
                let (a, b) = (u[j], u[4 + j]);
                _mm256_storeu_ps(dst.add(j * dst_pitch), _mm256_permute2f128_ps::<0x20>(a, b));
                _mm256_storeu_ps(dst.add((4 + j) * dst_pitch), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
}
