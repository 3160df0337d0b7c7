// Elements of operands as f32 whatever they are stored as, and sums over a warp.
#pragma once
#include "abi.cuh"

// N neighbours as one memory access.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T v[N];
};

// N neighbours from element `at` on. For N > 1 the address is a multiple of N elements.
template <int N>
__device__ inline void load_f32(const Operand& from, size_t at, float (&to)[N]) {
    if (from.type == F16) {
        const Pack<half, N> pack = *reinterpret_cast<const Pack<half, N>*>(static_cast<const half*>(from.data) + at);
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = __half2float(pack.v[i]);
    } else {
        const Pack<float, N> pack = *reinterpret_cast<const Pack<float, N>*>(static_cast<const float*>(from.data) + at);
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = pack.v[i];
    }
}

template <int N>
__device__ inline void store_f32(const Operand& to, size_t at, const float (&from)[N]) {
    if (to.type == F16) {
        Pack<half, N> pack;
#pragma unroll
        for (int i = 0; i < N; i++) pack.v[i] = __float2half(from[i]);
        *reinterpret_cast<Pack<half, N>*>(static_cast<half*>(to.data) + at) = pack;
    } else {
        Pack<float, N> pack;
#pragma unroll
        for (int i = 0; i < N; i++) pack.v[i] = from[i];
        *reinterpret_cast<Pack<float, N>*>(static_cast<float*>(to.data) + at) = pack;
    }
}

__device__ inline float load_f32(const Operand& from, size_t at) {
    return from.type == F16 ? __half2float(static_cast<const half*>(from.data)[at]) : static_cast<const float*>(from.data)[at];
}

__device__ inline void store_f32(const Operand& to, size_t at, float value) {
    if (to.type == F16) {
        static_cast<half*>(to.data)[at] = __float2half(value);
    } else {
        static_cast<float*>(to.data)[at] = value;
    }
}

// N neighbours as they are where the types agree, and between f32 and f16.
template <int N>
__device__ inline void copy_elements(const Operand& from, size_t from_at, const Operand& to, size_t to_at) {
    if (from.type != to.type) {
        float values[N];
        load_f32(from, from_at, values);
        store_f32(to, to_at, values);
    } else if (from.type == F16) {
        reinterpret_cast<Pack<half, N>*>(static_cast<half*>(to.data) + to_at)[0] =
            reinterpret_cast<const Pack<half, N>*>(static_cast<const half*>(from.data) + from_at)[0];
    } else if (from.type == U8) {
        reinterpret_cast<Pack<uint8_t, N>*>(static_cast<uint8_t*>(to.data) + to_at)[0] =
            reinterpret_cast<const Pack<uint8_t, N>*>(static_cast<const uint8_t*>(from.data) + from_at)[0];
    } else {
        reinterpret_cast<Pack<uint32_t, N>*>(static_cast<uint32_t*>(to.data) + to_at)[0] =
            reinterpret_cast<const Pack<uint32_t, N>*>(static_cast<const uint32_t*>(from.data) + from_at)[0];
    }
}

// Over the 32 lanes of a warp, all of which take part and get the result.
__device__ inline float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

__device__ inline float warp_max(float v) {
    for (int offset = 16; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}
