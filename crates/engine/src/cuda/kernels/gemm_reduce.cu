// The second half of products whose K is split over blocks.
#include "gemm.cuh"

// Adds the partial sums in the order of the parts, and finishes.
KERNEL_BOUNDED(gemm_reduce, GemmParams, 256) {
    const uint32_t across = partial_pitch(p) / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t row = at / across, n = (at - row * across) * 8;
    if (row >= valid_rows(p.rows)) return;
    float sums[8] = {};
    for (uint32_t split = 0; split < p.splits; split++) {
        float part[8];
        load_floats<8>(part, p.partial + (size_t(split) * p.m + row) * partial_pitch(p) + n);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += part[i];
    }
    finish<false>(p, row, n, sums);
}
