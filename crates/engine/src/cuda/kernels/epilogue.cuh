// What a layer does to its sums before they are stored: bias, activation, affine, residual, activation.
#pragma once
#include "vector.cuh"

// 0 is none; the others are the engine's `UnaryOp`s in their order, from 1.
enum Activation : uint32_t { NONE = 0, RELU = 1, SILU = 2, GELU = 3, SIGMOID = 4, TANH = 5 };

DEVICE float activate(uint32_t activation, float v) {
    switch (activation) {
        case RELU: return v < 0.0f ? 0.0f : v;
        case SILU: return v / (1.0f + expf(-v));
        // The normal distribution function, not the tanh approximation.
        case GELU: return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
        case SIGMOID: return 1.0f / (1.0f + expf(-v));
        case TANH: return tanhf(v);
        default: return v;
    }
}

struct Epilogue {
    // Of the result's shape, or fewer rows that are repeated; no data when there is none.
    Operand residual;
    // One for each column of the result, or null.
    const float* bias;
    uint32_t activation, activation_after_residual;
    // 1 and 0 when there is no affine step.
    float scale, shift;
};
static_assert(sizeof(Epilogue) == 48, "as in Rust");

// Finishes V neighbours of a row and stores them. With V over 1 `out`, the residual and the bias are aligned to V
// elements at `col`. The residual may be the result's own memory.
template <int V>
DEVICE void finish(const Epilogue& e, const Operand& out, uint32_t row, uint32_t col, float (&v)[V]) {
    if (e.bias) {
        float bias[V];
        load_floats<V>(bias, e.bias + col);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += bias[i];
    }
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = e.scale * activate(e.activation, v[i]) + e.shift;
    if (e.residual.data) {
        float residual[V];
        const uint32_t from = e.residual.rows == out.rows ? row : row % e.residual.rows;
        load_floats<V>(residual, e.residual, from, col);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = activate(e.activation_after_residual, v[i] + residual[i]);
    } else if (e.activation_after_residual != NONE) {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = activate(e.activation_after_residual, v[i]);
    }
    store_floats<V>(out, row, col, v);
}
