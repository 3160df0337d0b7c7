// Products of matrices: linear layers, 1x1 convolutions, transposed convolutions (a product whose columns are scattered)
// and matmul. `gemm_TYPE_MxN`: B is [N, K]; `matmul_TYPE_MxN`: B is [K, N].
#include "gemm.cuh"

#define GEMM(name, T, BM, BN, SUB_M, SUB_N, B_ROWS_ARE_K)                        \
    KERNEL_BOUNDED(name, GemmParams, (Tile<T, BM, BN, SUB_M, SUB_N>::kThreads)) { \
        gemm<Tile<T, BM, BN, SUB_M, SUB_N>, SUB_M, SUB_N, false, B_ROWS_ARE_K>(p); \
    }

GEMM(gemm_f16_128x128, __half, 128, 128, 64, 32, false)
GEMM(gemm_f16_128x64, __half, 128, 64, 64, 32, false)
GEMM(gemm_f16_128x32, __half, 128, 32, 32, 32, false)
GEMM(gemm_f16_64x64, __half, 64, 64, 32, 32, false)
GEMM(gemm_f16_32x64, __half, 32, 64, 16, 32, false)
GEMM(gemm_f32_128x64, float, 128, 64, 8, 4, false)
GEMM(gemm_f32_64x64, float, 64, 64, 4, 4, false)
GEMM(gemm_f32_32x32, float, 32, 32, 4, 2, false)

GEMM(matmul_f16_128x64, __half, 128, 64, 64, 32, true)
GEMM(matmul_f16_32x64, __half, 32, 64, 16, 32, true)
GEMM(matmul_f32_64x64, float, 64, 64, 4, 4, true)
GEMM(matmul_f32_32x32, float, 32, 32, 4, 2, true)

// Adds the partial sums of a product whose K was split, in the order of the parts, and finishes.
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
    finish(p, row, n, sums);
}
