// Convolutions that tensor cores cannot help: one input channel for each output channel, and groups of few.
#include "epilogue.cuh"
#include "window.cuh"

struct DepthwiseParams {
    Operand x, out;
    Epilogue epilogue;
    // [kernel_h * kernel_w, channels] for depthwise, [out channels, channels of a group, kernel_h * kernel_w] for groups.
    const float* weights;
    Rows rows;
    Window window;
    // 8 where all operands take eight channels at once, else 1.
    uint32_t width, groups;
};

// Neighbouring pixels that a thread computes, where it is not told otherwise: they share the weights it has loaded.
constexpr int kPixels = 2;

// A thread computes eight channels of PIXELS pixels of a line: `add_line(own, first, ox, ky, sums)` adds a line of the kernel, where
// the map has one, to each pixel's sums; `first` is the first pixel of the map's line.
template <bool HALF, int PIXELS, class F>
DEVICE void each_line(const DepthwiseParams& p, bool wide, F add_line) {
    const Window& w = p.window;
    const uint32_t line_groups = (w.out_w + PIXELS - 1) / PIXELS;
    const Eight own = own_eight(p.out.cols);
    const Pixel first = pixel_of(own.row, w.out_h, line_groups);
    const uint32_t ox = first.x * PIXELS, row = (first.n * w.out_h + first.y) * w.out_w + ox;
    if (row >= valid_rows(p.rows)) return;
    float sums[PIXELS][8] = {};
#pragma unroll 1
    for (uint32_t ky = 0; ky < w.kernel_h; ky++) {
        const uint32_t iy = first.y * w.stride_h + ky - w.pad_top;
        if (iy < w.in_h) add_line(own, (first.n * w.in_h + iy) * w.in_w, ox, ky, sums);
    }
#pragma unroll
    for (int pixel = 0; pixel < PIXELS; pixel++) {
        if (ox + pixel < w.out_w) finish<HALF>(p.epilogue, p.out, row + pixel, own.col, sums[pixel], own.count, wide);
    }
}

KERNEL_BOUNDED(depthwise, DepthwiseParams, 128) {
    const bool wide = p.width == 8;
    each_line<false, kPixels>(p, wide, [&](const Eight& own, uint32_t first, uint32_t ox, uint32_t ky, float (&sums)[kPixels][8]) {
        const Window& w = p.window;
        for (uint32_t kx = 0; kx < w.kernel_w; kx++) {
            const float* from = p.weights + size_t(ky * w.kernel_w + kx) * p.out.cols + own.col;
            float weights[8];
            if (wide) {
                load_floats<8>(weights, from);
            } else {
#pragma unroll
                for (int i = 0; i < 8; i++) weights[i] = i < int(own.count) ? from[i] : 0.0f;
            }
#pragma unroll
            for (int pixel = 0; pixel < kPixels; pixel++) {
                const uint32_t ix = (ox + pixel) * w.stride_w + kx - w.pad_left;
                if (ix >= w.in_w) continue;
                float x[8];
                load_some(x, p.x, first + ix, own.col, own.count, wide);
#pragma unroll
                for (int i = 0; i < 8; i++) sums[pixel][i] += x[i] * weights[i];
            }
        }
    });
}

DEVICE void unpack(float (&v)[8], const Bytes<16>& chunk) {
    union {
        Bytes<16> chunk;
        __half elements[8];
    } u;
    u.chunk = chunk;
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = __half2float(u.elements[i]);
}

// For f16 maps whose channels come by eights, and kernels K wide: the loads of a line of the kernel are under way at once.
template <int K>
DEVICE void depthwise_half(const DepthwiseParams& p) {
    each_line<true, kPixels>(p, true, [&](const Eight& own, uint32_t first, uint32_t ox, uint32_t ky, float (&sums)[kPixels][8]) {
        const Window& w = p.window;
        const __half* const line = static_cast<const __half*>(p.x.data) + size_t(first) * p.x.pitch + own.col;
        const float* const taps = p.weights + size_t(ky * K) * p.out.cols + own.col;
        Bytes<16> chunks[kPixels][K];
#pragma unroll
        for (int pixel = 0; pixel < kPixels; pixel++) {
#pragma unroll
            for (int kx = 0; kx < K; kx++) {
                const uint32_t ix = (ox + pixel) * w.stride_w + kx - w.pad_left;
                chunks[pixel][kx] = {};
                if (ix < w.in_w) chunks[pixel][kx] = load_chunk(line + size_t(ix) * p.x.pitch);
            }
        }
#pragma unroll
        for (int kx = 0; kx < K; kx++) {
            float weights[8];
            load_floats<8>(weights, taps + size_t(kx) * p.out.cols);
#pragma unroll
            for (int pixel = 0; pixel < kPixels; pixel++) {
                float x[8];
                unpack(x, chunks[pixel][kx]);
#pragma unroll
                for (int i = 0; i < 8; i++) sums[pixel][i] += x[i] * weights[i];
            }
        }
    });
}

// The same for a stride of 1: what a thread loads of a line serves all taps of four pixels.
template <int K>
DEVICE void depthwise_dense(const DepthwiseParams& p) {
    constexpr int PIXELS = 4, COLUMNS = PIXELS + K - 1;
    each_line<true, PIXELS>(p, true, [&](const Eight& own, uint32_t first, uint32_t ox, uint32_t ky, float (&sums)[PIXELS][8]) {
        const Window& w = p.window;
        const __half* const line = static_cast<const __half*>(p.x.data) + size_t(first) * p.x.pitch + own.col;
        const float* const taps = p.weights + size_t(ky * K) * p.out.cols + own.col;
        Bytes<16> chunks[COLUMNS];
        float weights[K][8];
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            const uint32_t ix = ox + column - w.pad_left;
            chunks[column] = {};
            if (ix < w.in_w) chunks[column] = load_chunk(line + size_t(ix) * p.x.pitch);
        }
#pragma unroll
        for (int kx = 0; kx < K; kx++) load_floats<8>(weights[kx], taps + size_t(kx) * p.out.cols);
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            float x[8];
            unpack(x, chunks[column]);
#pragma unroll
            for (int kx = 0; kx < K; kx++) {
                const int pixel = column - kx;
                if (pixel < 0 || pixel >= PIXELS) continue;
#pragma unroll
                for (int i = 0; i < 8; i++) sums[pixel][i] += x[i] * weights[kx][i];
            }
        }
    });
}

KERNEL_BOUNDED(depthwise_f16_3_dense, DepthwiseParams, 128) { depthwise_dense<3>(p); }
KERNEL_BOUNDED(depthwise_f16_3, DepthwiseParams, 128) { depthwise_half<3>(p); }
KERNEL_BOUNDED(depthwise_f16_5, DepthwiseParams, 128) { depthwise_half<5>(p); }

// A thread computes one element. No network here needs this to be fast.
KERNEL_BOUNDED(conv_grouped, DepthwiseParams, 128) {
    const Window& w = p.window;
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x, row = at / p.out.cols, col = at - row * p.out.cols;
    if (row >= valid_rows(p.rows)) return;
    const Pixel pixel = pixel_of(row, w.out_h, w.out_w);
    const uint32_t group_channels = p.x.cols / p.groups, first = col / (p.out.cols / p.groups) * group_channels;
    const uint32_t taps = w.kernel_h * w.kernel_w;
    float sums[8] = {};
    for (uint32_t tap = 0; tap < taps; tap++) {
        const uint32_t iy = pixel.y * w.stride_h + tap / w.kernel_w - w.pad_top;
        const uint32_t ix = pixel.x * w.stride_w + tap % w.kernel_w - w.pad_left;
        if (iy >= w.in_h || ix >= w.in_w) continue;
        const uint32_t from = (pixel.n * w.in_h + iy) * w.in_w + ix;
        for (uint32_t c = 0; c < group_channels; c++) {
            sums[0] += load(p.x, from, first + c) * p.weights[(size_t(col) * group_channels + c) * taps + tap];
        }
    }
    finish<false>(p.epilogue, p.out, row, col, sums, 1, false);
}
