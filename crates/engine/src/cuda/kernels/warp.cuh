// Over the 32 lanes of a warp, all of which take part and get the result.
#pragma once
#include "abi.cuh"

DEVICE float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

DEVICE uint32_t warp_sum(uint32_t v) {
#if defined(__CUDACC__)
    return __reduce_add_sync(0xffffffffu, v);
#else
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
#endif
}

DEVICE float warp_max(float v) {
    for (int offset = 16; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}

DEVICE uint64_t warp_max(uint64_t v) {
    for (int offset = 16; offset > 0; offset /= 2) {
        const uint64_t other = __shfl_xor_sync(0xffffffffu, v, offset);
        v = other > v ? other : v;
    }
    return v;
}

DEVICE uint32_t warp_min(uint32_t v) {
#if defined(__CUDACC__)
    return __reduce_min_sync(0xffffffffu, v);
#else
    for (int offset = 16; offset > 0; offset /= 2) v = min(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
#endif
}
