// Convolutions of f32 maps as products whose rows of A are windows: any kernel, stride and padding, one group.
#include "gemm.cuh"

KERNEL_EARLY(conv_f32_128x64, GemmParams, (Tile<float, 128, 64, 8, 4>::kThreads)) {
    convolve<Tile<float, 128, 64, 8, 4>>(p);
}
KERNEL_EARLY(conv_f32_64x64, GemmParams, (Tile<float, 64, 64, 4, 4>::kThreads)) {
    convolve<Tile<float, 64, 64, 4, 4>>(p);
}
KERNEL_EARLY(conv_f32_32x32, GemmParams, (Tile<float, 32, 32, 4, 2>::kThreads)) {
    convolve<Tile<float, 32, 32, 4, 2>>(p);
}
