// Convolutions of f16 maps as products whose rows of A are windows: any kernel, stride and padding, one group.
#include "gemm.cuh"

KERNEL_EARLY(conv_f16_128x128, GemmParams, (Tile<__half, 128, 128, 64, 32>::kThreads)) {
    convolve<Tile<__half, 128, 128, 64, 32>>(p);
}
KERNEL_EARLY(conv_f16_128x64, GemmParams, (Tile<__half, 128, 64, 64, 32>::kThreads)) {
    convolve<Tile<__half, 128, 64, 64, 32>>(p);
}
KERNEL_EARLY(conv_f16_128x32, GemmParams, (Tile<__half, 128, 32, 32, 32>::kThreads)) {
    convolve<Tile<__half, 128, 32, 32, 32>>(p);
}
KERNEL_EARLY(conv_f16_64x64, GemmParams, (Tile<__half, 64, 64, 32, 32>::kThreads)) {
    convolve<Tile<__half, 64, 64, 32, 32>>(p);
}
KERNEL_EARLY(conv_f16_32x64, GemmParams, (Tile<__half, 32, 64, 16, 32>::kThreads)) {
    convolve<Tile<__half, 32, 64, 16, 32>>(p);
}
