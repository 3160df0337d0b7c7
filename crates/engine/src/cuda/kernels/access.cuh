// Elements of operands by their distance from the first, whatever is stored.
#pragma once
#include "vector.cuh"

// N neighbours from element `at` on, as floats, of an operand that stores f32 or f16. For N > 1 the address is a multiple
// of N elements.
template <int N>
DEVICE void load_at(float (&values)[N], const Operand& from, size_t at) {
    if (from.type == F16) {
        load_floats<N>(values, static_cast<const __half*>(from.data) + at);
    } else {
        load_floats<N>(values, static_cast<const float*>(from.data) + at);
    }
}

template <int N>
DEVICE void store_at(const Operand& to, size_t at, const float (&values)[N]) {
    if (to.type == F16) {
        store_floats<N>(static_cast<__half*>(to.data) + at, values);
    } else {
        store_floats<N>(static_cast<float*>(to.data) + at, values);
    }
}

DEVICE float load_at(const Operand& from, size_t at) {
    float value[1];
    load_at<1>(value, from, at);
    return value[0];
}

DEVICE void store_at(const Operand& to, size_t at, float value) {
    const float values[1] = {value};
    store_at<1>(to, at, values);
}

// N neighbours as they are where the types agree, and between f32 and f16.
template <int N>
DEVICE void copy_at(const Operand& to, size_t to_at, const Operand& from, size_t from_at) {
    if (from.type != to.type) {
        float values[N];
        load_at<N>(values, from, from_at);
        store_at<N>(to, to_at, values);
    } else if (from.type == F16) {
        *reinterpret_cast<Bytes<2 * N>*>(static_cast<__half*>(to.data) + to_at) =
            *reinterpret_cast<const Bytes<2 * N>*>(static_cast<const __half*>(from.data) + from_at);
    } else if (from.type == U8) {
        for (int i = 0; i < N; i++) {
            static_cast<uint8_t*>(to.data)[to_at + i] = static_cast<const uint8_t*>(from.data)[from_at + i];
        }
    } else {
        *reinterpret_cast<Bytes<4 * N>*>(static_cast<uint32_t*>(to.data) + to_at) =
            *reinterpret_cast<const Bytes<4 * N>*>(static_cast<const uint32_t*>(from.data) + from_at);
    }
}
