// What a layer does to its sums before they are stored: bias, activation, affine, residual, activation.
#pragma once
#include "activation.cuh"
#include "vector.cuh"

struct Epilogue {
    // Of the result's shape, or fewer rows that are repeated; no data when there is none.
    Operand residual;
    // One for each column of the result, or null.
    const float* bias;
    uint32_t activation, activation_after_residual;
    // 1 and 0 when there is no affine step.
    float scale, shift;
    // Bounds of a clamp, which at most one of the activations is.
    float low, high;
};
static_assert(sizeof(Epilogue) == 56, "as in Rust");

template <class T>
DEVICE void add(float (&v)[8], const T* from, uint32_t count, bool wide) {
    if (wide) {
        float more[8];
        load_floats<8>(more, from);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += more[i];
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i < int(count)) v[i] += to_float(from[i]);
        }
    }
}

template <class T>
DEVICE void put(T* to, const float (&v)[8], uint32_t count, bool wide) {
    if (wide) {
        store_floats<8>(to, v);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i < int(count)) to[i] = from_float<T>(v[i]);
        }
    }
}

// What the layer makes of `count` (1 to 8) neighbours of a row's sums; `residual_row` is the residual's, where there is one. With
// `wide` there are 8, and the residual and the bias are aligned to 8 elements at `col`. HALF as for `activate`.
template <bool HALF>
DEVICE void transform(const Epilogue& e, uint32_t residual_row, uint32_t col, float (&v)[8], uint32_t count, bool wide) {
    uint32_t activation = e.activation;
    if (e.bias) add(v, e.bias + col, count, wide);
    // Twice through the same code: the functions are long.
#pragma unroll 1
    for (int pass = 0;; pass++) {
        activate<HALF>(activation, e.low, e.high, v);
        if (pass == 1) break;
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = e.scale * v[i] + e.shift;
        if (e.residual.data) {
            if (e.residual.type == F16) {
                add(v, element<const __half>(e.residual, residual_row, col), count, wide);
            } else {
                add(v, element<const float>(e.residual, residual_row, col), count, wide);
            }
        }
        activation = e.activation_after_residual;
        if (activation == NONE) break;
    }
}

// Row of the residual that belongs to a row of the result.
DEVICE uint32_t residual_row(const Epilogue& e, const Operand& out, uint32_t row) {
    return !e.residual.data || e.residual.rows == out.rows ? row : row % e.residual.rows;
}

// Stores `count` neighbours of a row; with `wide` there are 8, and `out` is aligned to 8 elements at `col`.
DEVICE void store_result(const Operand& out, uint32_t row, uint32_t col, const float (&v)[8], uint32_t count, bool wide) {
    if (out.type == F16) {
        put(element<__half>(out, row, col), v, count, wide);
    } else {
        put(element<float>(out, row, col), v, count, wide);
    }
}

// Finishes neighbours of a row and stores them. The residual may be the result's own memory.
template <bool HALF>
DEVICE void finish(const Epilogue& e, const Operand& out, uint32_t row, uint32_t col, float (&v)[8], uint32_t count,
                   bool wide) {
    transform<HALF>(e, residual_row(e, out, row), col, v, count, wide);
    store_result(out, row, col, v, count, wide);
}
