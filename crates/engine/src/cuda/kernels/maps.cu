// Pooling, enlarging and padding of feature maps. A thread has eight channels of one pixel of the result.
#include "window.cuh"

struct MapParams {
    Operand x, out;
    Rows rows;
    // For padding and enlarging the kernel's extents and strides say nothing.
    Window window;
    // 8 where both maps take eight channels at once, else 1.
    uint32_t width, reserved;
};

// The largest value of each window; padding never wins.
KERNEL_BOUNDED(max_pool, MapParams, 128) {
    const Window& w = p.window;
    const Eight own = own_eight(p.out.cols);
    if (own.row >= valid_rows(p.rows)) return;
    const Pixel pixel = pixel_of(own.row, w.out_h, w.out_w);
    float best[8];
#pragma unroll
    for (int i = 0; i < 8; i++) best[i] = -INFINITY;
    for (uint32_t ky = 0; ky < w.kernel_h; ky++) {
        for (uint32_t kx = 0; kx < w.kernel_w; kx++) {
            const uint32_t iy = pixel.y * w.stride_h + ky - w.pad_top, ix = pixel.x * w.stride_w + kx - w.pad_left;
            if (iy >= w.in_h || ix >= w.in_w) continue;
            float x[8];
            load_some(x, p.x, (pixel.n * w.in_h + iy) * w.in_w + ix, own.col, own.count, p.width == 8);
#pragma unroll
            for (int i = 0; i < 8; i++) best[i] = fmaxf(best[i], x[i]);
        }
    }
    store_some(p.out, own.row, own.col, best, own.count, p.width == 8);
}

// Each pixel twice in both directions.
KERNEL_BOUNDED(upsample_nearest_2x, MapParams, 128) {
    const Window& w = p.window;
    const Eight own = own_eight(p.out.cols);
    if (own.row >= valid_rows(p.rows)) return;
    const Pixel pixel = pixel_of(own.row, w.out_h, w.out_w);
    float x[8];
    load_some(x, p.x, (pixel.n * w.in_h + pixel.y / 2) * w.in_w + pixel.x / 2, own.col, own.count, p.width == 8);
    store_some(p.out, own.row, own.col, x, own.count, p.width == 8);
}

// Zeros around.
KERNEL_BOUNDED(pad, MapParams, 128) {
    const Window& w = p.window;
    const Eight own = own_eight(p.out.cols);
    if (own.row >= valid_rows(p.rows)) return;
    const Pixel pixel = pixel_of(own.row, w.out_h, w.out_w);
    const uint32_t iy = pixel.y - w.pad_top, ix = pixel.x - w.pad_left;
    float x[8] = {};
    if (iy < w.in_h && ix < w.in_w) {
        load_some(x, p.x, (pixel.n * w.in_h + iy) * w.in_w + ix, own.col, own.count, p.width == 8);
    }
    store_some(p.out, own.row, own.col, x, own.count, p.width == 8);
}
