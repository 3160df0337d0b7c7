// Floats as keys that sort exactly, and a sort by one block.
#pragma once
#include "abi.cuh"

// Larger values have larger keys; NaN has the largest, and both zeros have the same.
DEVICE uint32_t sort_key(float value) {
    if (value != value) return 0xffffffffu;
    const float one_zero = value + 0.0f;
    const uint32_t bits = __float_as_uint(one_zero);
    return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

// A value with its index: larger values first, of equal ones the lower index. Never 0, so 0 can stand for nothing.
DEVICE uint64_t sort_key(float value, uint32_t index) { return uint64_t(sort_key(value)) << 32 | (0xffffffffu - index); }

DEVICE uint32_t index_of_key(uint64_t key) { return 0xffffffffu - uint32_t(key); }

// Sorts `n` keys, a power of two, largest first (K. E. Batcher, "Sorting networks and their applications", 1968). Called by
// all threads of the block; begins and ends with a barrier.
DEVICE void block_sort_descending(uint64_t* keys, uint32_t n) {
    __syncthreads();
    for (uint32_t size = 2; size <= n; size *= 2) {
        for (uint32_t stride = size / 2; stride > 0; stride /= 2) {
            for (uint32_t i = threadIdx.x; i < n / 2; i += blockDim.x) {
                const uint32_t low = 2 * i - (i & (stride - 1)), high = low + stride;
                const bool descending = (low & size) == 0;
                const uint64_t a = keys[low], b = keys[high];
                if ((a < b) == descending) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
            __syncthreads();
        }
    }
}
