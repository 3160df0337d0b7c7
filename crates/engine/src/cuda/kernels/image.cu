// A raw frame of 8-bit pixels to a network's input: resized with an antialiased triangle filter, scaled and shifted for each
// channel, zero outside the resized part.
#include "abi.cuh"

constexpr uint32_t TILE_W = 32, TILE_H = 8;  // pixels of the result that a block makes, a thread each
constexpr uint32_t LINES = 16;               // lines of the frame that are in shared memory at once, resized along x

// A resize along one axis: for each position of the result, the first sample and `taps` weights from there.
struct Axis {
    const uint32_t* starts;
    const float* weights;
    uint32_t taps, resized;
};

struct ImageParams {
    Operand frame;  // `[height, width * channels]` u8
    Operand out;    // `[height * width, 3]`
    Axis rows, cols;
    uint32_t channels;  // 1 or 3
    uint32_t out_height, out_width;
    float scale[3], shift[3];
    uint32_t reserved;
};

KERNEL_BOUNDED(image_to_tensor, ImageParams, TILE_W* TILE_H) {
    SHARED(float, lines, [LINES][3][TILE_W]);
    const uint32_t tx = threadIdx.x % TILE_W, ty = threadIdx.x / TILE_W;
    const uint32_t x = blockIdx.x * TILE_W + tx, top = blockIdx.y * TILE_H, y = top + ty;
    const bool inside = x < p.cols.resized && y < p.rows.resized;
    float sum[3] = {0.0f, 0.0f, 0.0f};
    if (blockIdx.x * TILE_W < p.cols.resized && top < p.rows.resized) {
        const uint32_t last = min(top + TILE_H, p.rows.resized) - 1;
        const uint32_t first_line = p.rows.starts[top], end_line = p.rows.starts[last] + p.rows.taps;
        const uint32_t start = inside ? p.rows.starts[y] : 0;
        for (uint32_t line = first_line; line < end_line; line += LINES) {
            const uint32_t count = min(LINES, end_line - line);
            for (uint32_t l = ty; l < count; l += TILE_H) {
                if (x >= p.cols.resized) break;
                const uint8_t* const samples = element<const uint8_t>(p.frame, line + l, p.cols.starts[x] * p.channels);
                const float* const weights = p.cols.weights + size_t(x) * p.cols.taps;
                float along[3] = {0.0f, 0.0f, 0.0f};
                for (uint32_t t = 0; t < p.cols.taps; t++) {
                    for (uint32_t c = 0; c < p.channels; c++) along[c] += weights[t] * float(samples[t * p.channels + c]);
                }
                for (uint32_t c = 0; c < p.channels; c++) lines[l][c][tx] = along[c];
            }
            __syncthreads();
            if (inside) {
                const uint32_t from = max(line, start), to = min(line + count, start + p.rows.taps);
                for (uint32_t l = from; l < to; l++) {
                    const float weight = p.rows.weights[size_t(y) * p.rows.taps + (l - start)];
                    for (uint32_t c = 0; c < p.channels; c++) sum[c] += weight * lines[l - line][c][tx];
                }
            }
            __syncthreads();
        }
    }
    if (x >= p.out_width || y >= p.out_height) return;
    for (uint32_t c = 0; c < 3; c++) {
        const float sample = p.channels == 3 ? sum[c] : sum[0];
        store(p.out, y * p.out_width + x, c, inside ? p.scale[c] * sample + p.shift[c] : 0.0f);
    }
}
