// Convolutions as products whose rows of A are windows: any kernel, stride and padding, one group.
#include "gemm.cuh"

#define CONV(name, T, BM, BN, SUB_M, SUB_N)                                      \
    KERNEL_BOUNDED(name, GemmParams, (Tile<T, BM, BN, SUB_M, SUB_N>::kThreads)) { \
        gemm<Tile<T, BM, BN, SUB_M, SUB_N>, SUB_M, SUB_N, true, false>(p);       \
    }

CONV(conv_f16_128x128, __half, 128, 128, 64, 32)
CONV(conv_f16_128x64, __half, 128, 64, 64, 32)
CONV(conv_f16_128x32, __half, 128, 32, 32, 32)
CONV(conv_f16_64x64, __half, 64, 64, 32, 32)
CONV(conv_f16_32x64, __half, 32, 64, 16, 32)
CONV(conv_f32_128x64, float, 128, 64, 8, 4)
CONV(conv_f32_64x64, float, 64, 64, 4, 4)
CONV(conv_f32_32x32, float, 32, 32, 4, 2)
