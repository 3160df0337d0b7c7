// A few linear layers in one launch, with a sum before them and a layer norm after: a block takes 16 rows through all of them, and
// what lies between stays in shared memory, in f16. For few rows and narrow layers, where launches cost more than the arithmetic:
// each block reads all weights.
#include "epilogue.cuh"
#include "ptx.cuh"
#include "warp.cuh"

constexpr uint32_t MAX_LAYERS = 3;
constexpr uint32_t ROWS = 16, WARPS = 16, THREADS = 32 * WARPS;
// K goes by so many elements: a lane reads eight of a row at once and gives them to two products.
constexpr uint32_t SLAB = 32;
// Slabs of weights that are on their way while others are multiplied.
constexpr uint32_t DEPTH = 4;

struct PerceptronLayer {
    Epilogue epilogue;
    // `[n rounded up to 8, k]`, zeros past the last column and row.
    const __half* weights;
    uint32_t n, k;  // `k`: a multiple of SLAB
};

struct PerceptronParams {
    // `added`: what is added to `x`, of its shape, or without data.
    Operand x, added, out;
    Rows rows;
    PerceptronLayer layers[MAX_LAYERS];
    // Of the norm of the last layer's rows; null without one.
    const float *gamma, *beta;
    uint32_t count;
    // 8 where `x` and `added`, and `out`, take eight elements at once, else 1.
    uint32_t x_width, out_width;
    // Elements from one row to the next in shared memory, of activations and of sums.
    uint32_t pitch, sums_pitch;
    float epsilon;
};
static_assert(sizeof(PerceptronParams) == 344, "as in Rust");

// Eight neighbours of shared memory as they are.
DEVICE Bytes<16> shared_chunk(const __half* p) {
#if !defined(__CUDACC__)
    emulate::check_shared(p, 16);
#endif
    return *reinterpret_cast<const Bytes<16>*>(p);
}

// Parts of DEPTH slabs of two columns' weights that a lane needs.
struct Slabs {
    Bytes<16> columns[DEPTH][2];

    DEVICE void load(const __half* first, const __half* second, uint32_t k, uint32_t end) {
#pragma unroll
        for (uint32_t s = 0; s < DEPTH; s++) {
            if (k + s * SLAB < end) {
                columns[s][0] = load_chunk(first + k + s * SLAB);
                columns[s][1] = load_chunk(second + k + s * SLAB);
            }
        }
    }
};

// sums[16, n] = a[16, k] * weights. A warp has pairs of eight columns. Which of a slab's elements is the i-th of a product does not
// matter as long as both operands agree: lane t of four has elements 8 t to 8 t + 7, of which a product takes four.
DEVICE void multiply(const PerceptronLayer& layer, const __half* a, uint32_t pitch, float* sums, uint32_t sums_pitch) {
    const uint32_t warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint32_t tiles = (layer.n + 7) / 8;
    const __half* const upper = a + row * pitch + t * 8;
    const __half* const lower = upper + 8 * pitch;
    for (uint32_t tile = warp * 2; tile < tiles; tile += WARPS * 2) {
        // The last pair may be one: it is computed twice, and stored once.
        const uint32_t other = tile + 1 < tiles ? tile + 1 : tile;
        const __half* const first = layer.weights + (tile * 8 + row) * layer.k + t * 8;
        const __half* const second = layer.weights + (other * 8 + row) * layer.k + t * 8;
        float sum[2][4] = {};
        Slabs now, next;
        now.load(first, second, 0, layer.k);
        for (uint32_t k = 0; k < layer.k; k += DEPTH * SLAB) {
            next.load(first, second, k + DEPTH * SLAB, layer.k);
#pragma unroll
            for (uint32_t s = 0; s < DEPTH; s++) {
                if (k + s * SLAB >= layer.k) break;
                const Bytes<16> high = shared_chunk(upper + k + s * SLAB), low = shared_chunk(lower + k + s * SLAB);
#pragma unroll
                for (int i = 0; i < 4; i += 2) {
                    const uint32_t part[4] = {high.words[i], low.words[i], high.words[i + 1], low.words[i + 1]};
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const Bytes<16>& b = now.columns[s][j];
                        multiply_16x8x16(sum[j], part, b.words[i], b.words[i + 1]);
                    }
                }
            }
            now = next;
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            if (j == 1 && other == tile) break;
            float* const own = sums + row * sums_pitch + (tile + j) * 8 + t * 2;
            own[0] = sum[j][0];
            own[1] = sum[j][1];
            own[8 * sums_pitch] = sum[j][2];
            own[8 * sums_pitch + 1] = sum[j][3];
        }
    }
}

// Eight neighbours of the sum that goes in, of which `valid` exist.
DEVICE void fetch(const PerceptronParams& p, uint32_t row, uint32_t col, uint32_t valid, __half* to) {
    if (p.x_width == 8 && valid >= 8) {
        if (!p.added.data) {
            *reinterpret_cast<Bytes<16>*>(to) = load_chunk(element<const __half>(p.x, row, col));
            return;
        }
        float a[8], b[8];
        load_floats<8>(a, p.x, row, col);
        load_floats<8>(b, p.added, row, col);
#pragma unroll
        for (int i = 0; i < 8; i++) to[i] = __float2half_rn(a[i] + b[i]);
    } else {
#pragma unroll 1
        for (uint32_t i = 0; i < 8; i++) {
            float v = 0.0f;
            if (i < valid) v = load(p.x, row, col + i) + (p.added.data ? load(p.added, row, col + i) : 0.0f);
            to[i] = __float2half_rn(v);
        }
    }
}

// The layer norm of the block's rows: a warp takes one at a time.
DEVICE void normalise(const PerceptronParams& p, const float* sums, uint32_t first_row, uint32_t end_row) {
    const uint32_t lane = threadIdx.x % 32, n = p.out.cols;
    for (uint32_t r = threadIdx.x / 32; r < ROWS && first_row + r < end_row; r += WARPS) {
        const float* const x = sums + r * p.sums_pitch;
        float mean = 0.0f, variance = 0.0f;
        for (uint32_t c = lane; c < n; c += 32) mean += x[c];
        mean = warp_sum(mean) / float(n);
        for (uint32_t c = lane; c < n; c += 32) variance += (x[c] - mean) * (x[c] - mean);
        const float scale = 1.0f / sqrtf(warp_sum(variance) / float(n) + p.epsilon);
        for (uint32_t c = lane; c < n; c += 32) {
            store(p.out, first_row + r, c, p.beta[c] + (x[c] - mean) * scale * p.gamma[c]);
        }
    }
}

// Brings all weights nearer, a part of them for each block.
DEVICE void prefetch_weights(const PerceptronParams& p) {
    constexpr uint32_t LINE = 128 / sizeof(__half);
    for (uint32_t l = 0; l < p.count; l++) {
        const PerceptronLayer& layer = p.layers[l];
        const uint32_t elements = (layer.n + 7) / 8 * 8 * layer.k;
        for (uint32_t at = (blockIdx.x * THREADS + threadIdx.x) * LINE; at < elements; at += gridDim.x * THREADS * LINE) {
            prefetch(layer.weights + at);
        }
    }
}

KERNEL_EARLY(perceptron_f16, PerceptronParams, THREADS) {
    prefetch_weights(p);
    wait_for_previous();
    const uint32_t first_row = blockIdx.x * ROWS, end_row = valid_rows(p.rows);
    if (first_row >= end_row) return;
    DYNAMIC_SHARED(float, sums);
    __half* const a = reinterpret_cast<__half*>(sums + ROWS * p.sums_pitch);

    const uint32_t chunks = p.layers[0].k / 8;
    for (uint32_t at = threadIdx.x; at < ROWS * chunks; at += THREADS) {
        const uint32_t r = at / chunks, c = at % chunks * 8, row = first_row + r;
        const uint32_t valid = row < end_row && c < p.x.cols ? p.x.cols - c : 0;
        fetch(p, row, c, valid, a + r * p.pitch + c);
    }
    __syncthreads();

    for (uint32_t l = 0;; l++) {
        const PerceptronLayer& layer = p.layers[l];
        const bool last = l + 1 == p.count;
        multiply(layer, a, p.pitch, sums, p.sums_pitch);
        __syncthreads();
        // The next layer reads whole slabs.
        const uint32_t width = (last ? layer.n + 7 : p.layers[l + 1].k) / 8;
        for (uint32_t at = threadIdx.x; at < ROWS * width; at += THREADS) {
            const uint32_t r = at / width, c = at % width * 8;
            const uint32_t count = c >= layer.n ? 0 : layer.n - c < 8 ? layer.n - c : 8;
            const uint32_t row = first_row + r;
            float* const own = sums + r * p.sums_pitch + c;
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = i < int(count) ? own[i] : 0.0f;
            if (last && row >= end_row) continue;
            if (last && p.gamma) {
                transform<true>(layer.epilogue, row, c, v, count, p.out_width == 8);
#pragma unroll
                for (int i = 0; i < 8; i++) own[i] = v[i];
            } else if (last) {
                finish<true>(layer.epilogue, p.out, row, c, v, count, p.out_width == 8);
            } else {
                if (count > 0) transform<true>(layer.epilogue, 0, c, v, count, count == 8);
#pragma unroll
                for (int i = 0; i < 8; i++) a[r * p.pitch + c + i] = __float2half_rn(i < int(count) ? v[i] : 0.0f);
            }
        }
        if (last && !p.gamma) break;
        __syncthreads();
        if (last) {
            normalise(p, sums, first_row, end_row);
            break;
        }
    }
}
