// Products of f16 matrices: linear layers, 1x1 convolutions, transposed convolutions (a product whose columns are scattered)
// and matmul. `gemm_*`: B is [N, K]; `matmul_*`: B is [K, N].
#include "gemm.cuh"

KERNEL_EARLY(gemm_f16_128x128, GemmParams, (Tile<__half, 128, 128, 64, 32>::kThreads)) {
    multiply_rows<Tile<__half, 128, 128, 64, 32>>(p);
}
KERNEL_EARLY(gemm_f16_128x64, GemmParams, (Tile<__half, 128, 64, 64, 32>::kThreads)) {
    multiply_rows<Tile<__half, 128, 64, 64, 32>>(p);
}
KERNEL_EARLY(gemm_f16_128x32, GemmParams, (Tile<__half, 128, 32, 32, 32>::kThreads)) {
    multiply_rows<Tile<__half, 128, 32, 32, 32>>(p);
}
KERNEL_EARLY(gemm_f16_64x64, GemmParams, (Tile<__half, 64, 64, 32, 32>::kThreads)) {
    multiply_rows<Tile<__half, 64, 64, 32, 32>>(p);
}
KERNEL_EARLY(gemm_f16_32x64, GemmParams, (Tile<__half, 32, 64, 16, 32>::kThreads)) {
    multiply_rows<Tile<__half, 32, 64, 16, 32>>(p);
}

KERNEL_EARLY(matmul_f16_128x64, GemmParams, (Tile<__half, 128, 64, 64, 32>::kThreads)) {
    multiply_columns<Tile<__half, 128, 64, 64, 32>>(p);
}
KERNEL_EARLY(matmul_f16_32x64, GemmParams, (Tile<__half, 32, 64, 16, 32>::kThreads)) {
    multiply_columns<Tile<__half, 32, 64, 16, 32>>(p);
}

// Whole rows of 256 and of 64 columns, and their layer norm.
KERNEL_EARLY(gemm_f16_64x256_norm, GemmParams, (Tile<__half, 64, 256, 32, 64, 3>::kThreads)) {
    multiply_rows_and_norm<Tile<__half, 64, 256, 32, 64, 3>>(p);
}
KERNEL_EARLY(gemm_f16_128x64_norm, GemmParams, (Tile<__half, 128, 64, 64, 32>::kThreads)) {
    multiply_rows_and_norm<Tile<__half, 128, 64, 64, 32>>(p);
}
