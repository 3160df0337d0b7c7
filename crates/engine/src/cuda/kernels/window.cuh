// Windows of feature maps, and what kernels that walk over maps share: a thread has eight neighbouring channels.
#pragma once
#include "vector.cuh"

// Window (oy, ox) begins at (oy * stride_h - pad_top, ox * stride_w - pad_left); what is outside of the map is padding.
struct Window {
    uint32_t in_h, in_w, out_h, out_w;
    uint32_t kernel_h, kernel_w, stride_h, stride_w;
    uint32_t pad_top, pad_left, channels, channels_padded;
};

// Up to eight neighbours of a row, as floats. With `wide` there are eight, aligned to all of them.
DEVICE void load_some(float (&v)[8], const Operand& o, uint32_t row, uint32_t col, uint32_t count, bool wide) {
    if (wide) {
        load_floats<8>(v, o, row, col);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = i < int(count) ? load(o, row, col + i) : 0.0f;
    }
}
DEVICE void store_some(const Operand& o, uint32_t row, uint32_t col, const float (&v)[8], uint32_t count, bool wide) {
    if (wide) {
        store_floats<8>(o, row, col, v);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i < int(count)) store(o, row, col + i, v[i]);
        }
    }
}

// Row and first channel of this thread's eight of a map of `cols` channels, and how many of them there are.
struct Eight {
    uint32_t row, col, count;
};
DEVICE Eight own_eight(uint32_t cols) {
    const uint32_t across = (cols + 7) / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t row = at / across, col = (at - row * across) * 8;
    return {row, col, cols - col < 8 ? cols - col : 8};
}

// A pixel of a map of `height` x `width`, from its row.
struct Pixel {
    uint32_t n, y, x;
};
DEVICE Pixel pixel_of(uint32_t row, uint32_t height, uint32_t width) {
    const uint32_t line = row / width, n = line / height;
    return {n, line - n * height, row - line * width};
}
