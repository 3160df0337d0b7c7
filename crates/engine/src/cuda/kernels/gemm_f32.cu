// Products of f32 matrices: linear layers, 1x1 convolutions, transposed convolutions (a product whose columns are scattered)
// and matmul. `gemm_*`: B is [N, K]; `matmul_*`: B is [K, N].
#include "gemm.cuh"

KERNEL_EARLY(gemm_f32_128x64, GemmParams, (Tile<float, 128, 64, 8, 4>::kThreads)) {
    multiply_rows<Tile<float, 128, 64, 8, 4>>(p);
}
KERNEL_EARLY(gemm_f32_64x64, GemmParams, (Tile<float, 64, 64, 4, 4>::kThreads)) {
    multiply_rows<Tile<float, 64, 64, 4, 4>>(p);
}
KERNEL_EARLY(gemm_f32_32x32, GemmParams, (Tile<float, 32, 32, 4, 2>::kThreads)) {
    multiply_rows<Tile<float, 32, 32, 4, 2>>(p);
}

KERNEL_EARLY(matmul_f32_64x64, GemmParams, (Tile<float, 64, 64, 4, 4>::kThreads)) {
    multiply_columns<Tile<float, 64, 64, 4, 4>>(p);
}
KERNEL_EARLY(matmul_f32_32x32, GemmParams, (Tile<float, 32, 32, 4, 2>::kThreads)) {
    multiply_columns<Tile<float, 32, 32, 4, 2>>(p);
}
