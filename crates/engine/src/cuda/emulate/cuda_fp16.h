// Half precision for the emulation: storage and conversion, as cuda_fp16.h names them. Arithmetic is done in f32 by
// every kernel, so there is none here.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace emulate {

// To nearest, ties to even; overflow to infinity, NaN stays NaN.
inline uint16_t half_from_float(float value) {
#if defined(__F16C__)
    return uint16_t(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
#else
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
    uint32_t result, rest, half_way;
    if (magnitude < 0x38800000) {
        // Subnormal: the value is a whole number of 2^-24, found by shifting the significand.
        const uint32_t shift = 126 - (magnitude >> 23);
        if (shift > 24) return uint16_t(sign);
        const uint32_t significand = (magnitude & 0x7fffff) | 0x800000;
        result = significand >> shift;
        rest = significand & ((1u << shift) - 1);
        half_way = 1u << (shift - 1);
    } else {
        result = (magnitude - 0x38000000) >> 13;
        rest = magnitude & 0x1fff;
        half_way = 0x1000;
    }
    result += rest > half_way || (rest == half_way && (result & 1));
    return uint16_t(sign | result);
#endif
}

inline float float_from_half(uint16_t half) {
#if defined(__F16C__)
    return _cvtsh_ss(half);
#else
    const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 31, significand = half & 0x3ff;
    uint32_t bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | significand << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | significand << 13;
    } else {
        const float magnitude = float(significand) * 0x1p-24f;
        std::memcpy(&bits, &magnitude, 4);
        bits |= sign;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
#endif
}

}  // namespace emulate

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float v) : bits(emulate::half_from_float(v)) {}
    operator float() const { return emulate::float_from_half(bits); }
};
struct alignas(4) __half2 {
    __half x, y;
};
using half = __half;
using half2 = __half2;

inline float __half2float(__half v) { return v; }
inline __half __float2half(float v) { return v; }
inline __half __float2half_rn(float v) { return v; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half __low2half(__half2 v) { return v.x; }
inline __half __high2half(__half2 v) { return v.y; }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
inline uint16_t __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(uint16_t bits) {
    __half v;
    v.bits = bits;
    return v;
}
