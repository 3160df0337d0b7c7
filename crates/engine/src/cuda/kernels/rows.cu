// Functions of whole rows: a warp takes a row and keeps its first elements in registers. Statistics are f32.
#include "access.cuh"
#include "activation.cuh"
#include "warp.cuh"

constexpr int CHUNKS = 4;

// A row in the hands of a warp, in packs of V neighbours: pack `c * 32 + lane` for each c. The first CHUNKS packs of a
// lane stay in registers, longer rows are read again.
template <int V>
struct WarpRow {
    const Operand& x;
    size_t start;
    uint32_t cols, lane;
    float cached[CHUNKS][V];

    __device__ WarpRow(const Operand& x, uint32_t row) : x(x), start(size_t(row) * x.pitch), cols(x.cols), lane(threadIdx.x % 32) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            if (column(c) < cols) load_at(cached[c], x, start + column(c));
        }
    }

    __device__ uint32_t column(uint32_t chunk) const { return (chunk * 32 + lane) * V; }

    // `f(column, pack)` for each pack of the lane.
    template <class F>
    __device__ void each_pack(F f) const {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            if (column(c) < cols) f(column(c), cached[c]);
        }
        for (uint32_t at = column(CHUNKS); at < cols; at += 32 * V) {
            float pack[V];
            load_at(pack, x, start + at);
            f(at, pack);
        }
    }

    __device__ float max() const {
        float highest = -INFINITY;
        each_pack([&](uint32_t, const float(&pack)[V]) {
#pragma unroll
            for (int i = 0; i < V; i++) highest = fmaxf(highest, pack[i]);
        });
        return warp_max(highest);
    }

    // Sum of `f(element)`.
    template <class F>
    __device__ float sum(F f) const {
        float total = 0.0f;
        each_pack([&](uint32_t, const float(&pack)[V]) {
#pragma unroll
            for (int i = 0; i < V; i++) total += f(pack[i]);
        });
        return warp_sum(total);
    }
};

// Row of this warp.
DEVICE uint32_t warp_row() { return (blockIdx.x * blockDim.x + threadIdx.x) / 32; }

struct ReduceParams {
    Operand x, out;  // `[rows, cols]`, `[rows, 1]`
    Rows rows;
    uint32_t op;     // `ReduceOp`, in the order of its declaration
    uint32_t width;  // 4 where rows of `x` start at multiples of 4 elements and have as many, or 1
};

template <int V>
DEVICE void reduce_row(const ReduceParams& p, uint32_t row) {
    const WarpRow<V> x(p.x, row);
    float result = p.op == 0 ? x.max() : x.sum([](float v) { return v; });
    if (p.op == 2) result /= float(p.x.cols);
    if (x.lane == 0) store_at(p.out, size_t(row) * p.out.pitch, result);
}

KERNEL(reduce_rows, ReduceParams) {
    const uint32_t row = warp_row();
    if (row >= valid_rows(p.rows)) return;
    if (p.width == 4) {
        reduce_row<4>(p, row);
    } else {
        reduce_row<1>(p, row);
    }
}

struct SoftmaxParams {
    Operand x, out;
    Rows rows;
    uint32_t width;  // as in ReduceParams, for both operands
    uint32_t reserved;
};

template <int V>
DEVICE void softmax_row(const SoftmaxParams& p, uint32_t row) {
    const WarpRow<V> x(p.x, row);
    const float highest = x.max();
    const float scale = 1.0f / x.sum([=](float v) { return expf(v - highest); });
    x.each_pack([&](uint32_t column, const float(&pack)[V]) {
        float y[V];
#pragma unroll
        for (int i = 0; i < V; i++) y[i] = expf(pack[i] - highest) * scale;
        store_at(p.out, size_t(row) * p.out.pitch + column, y);
    });
}

KERNEL(softmax_rows, SoftmaxParams) {
    const uint32_t row = warp_row();
    if (row >= valid_rows(p.rows)) return;
    if (p.width == 4) {
        softmax_row<4>(p, row);
    } else {
        softmax_row<1>(p, row);
    }
}

struct LayerNormParams {
    Operand x, gamma, beta, out;
    Rows rows;
    float epsilon;
    uint32_t width;     // as in ReduceParams, for all operands
    uint32_t zero_row;  // 1: the row after the bound is written as the norm of zeros, which is `beta`
    uint32_t activation;  // of `layer_norm_rows_activated`
    float low, high;      // bounds of a clamp
};

template <int V, bool ACTIVATED>
DEVICE void layer_norm_row(const LayerNormParams& p, uint32_t row) {
    const WarpRow<V> x(p.x, row);
    const float mean = x.sum([](float v) { return v; }) / float(p.x.cols);
    const float variance = x.sum([=](float v) { return (v - mean) * (v - mean); }) / float(p.x.cols);
    const float scale = 1.0f / sqrtf(variance + p.epsilon);
    x.each_pack([&](uint32_t column, const float(&pack)[V]) {
        float gamma[V], y[V];
        load_at(gamma, p.gamma, column);
        load_at(y, p.beta, column);
#pragma unroll
        for (int i = 0; i < V; i++) y[i] += (pack[i] - mean) * scale * gamma[i];
        if (ACTIVATED) activate<false>(p.activation, p.low, p.high, y);
        store_at(p.out, size_t(row) * p.out.pitch + column, y);
    });
}

template <bool ACTIVATED>
DEVICE void layer_norm(const LayerNormParams& p) {
    const uint32_t row = warp_row();
    if (p.zero_row != 0 && row == p.rows.bound) {
        for (uint32_t column = threadIdx.x % 32; column < p.out.cols; column += 32) {
            store_at(p.out, size_t(row) * p.out.pitch + column, load_at(p.beta, column));
        }
    }
    if (row >= valid_rows(p.rows)) return;
    if (p.width == 4) {
        layer_norm_row<4, ACTIVATED>(p, row);
    } else {
        layer_norm_row<1, ACTIVATED>(p, row);
    }
}

// Two kernels, for the functions make the code long.
KERNEL(layer_norm_rows, LayerNormParams) { layer_norm<false>(p); }
KERNEL(layer_norm_rows_activated, LayerNormParams) { layer_norm<true>(p); }
