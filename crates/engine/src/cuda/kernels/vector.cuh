// Several neighbouring elements at once, as floats. Callers know that the address is aligned to all of them.
#pragma once
#include "abi.cuh"

template <int BYTES>
struct alignas(BYTES) Bytes {
    uint32_t words[(BYTES + 3) / 4];
};
template <>
struct alignas(2) Bytes<2> {
    uint16_t words[1];
};

// Loads take the widest instruction that V elements fill, at most 16 bytes.
template <int V, class T>
DEVICE void load_floats(float (&values)[V], const T* p) {
    constexpr int kPart = V * int(sizeof(T)) > 16 ? 16 / int(sizeof(T)) : V;
#if !defined(__CUDACC__)
    if (reinterpret_cast<uintptr_t>(p) % (kPart * sizeof(T))) emulate::fail("a load that is not aligned");
    emulate::check_global(p, V * sizeof(T));
#endif
#pragma unroll
    for (int part = 0; part < V; part += kPart) {
        union {
            Bytes<kPart * int(sizeof(T))> bytes;
            T elements[kPart];
        } u;
        u.bytes = *reinterpret_cast<const Bytes<kPart * int(sizeof(T))>*>(p + part);
#pragma unroll
        for (int i = 0; i < kPart; i++) values[part + i] = to_float(u.elements[i]);
    }
}

template <int V, class T>
DEVICE void store_floats(T* p, const float (&values)[V]) {
    constexpr int kPart = V * int(sizeof(T)) > 16 ? 16 / int(sizeof(T)) : V;
#if !defined(__CUDACC__)
    if (reinterpret_cast<uintptr_t>(p) % (kPart * sizeof(T))) emulate::fail("a store that is not aligned");
    emulate::check_global(p, V * sizeof(T));
#endif
#pragma unroll
    for (int part = 0; part < V; part += kPart) {
        union {
            Bytes<kPart * int(sizeof(T))> bytes;
            T elements[kPart];
        } u;
#pragma unroll
        for (int i = 0; i < kPart; i++) u.elements[i] = from_float<T>(values[part + i]);
        *reinterpret_cast<Bytes<kPart * int(sizeof(T))>*>(p + part) = u.bytes;
    }
}

// Eight f16 as they are, of global memory.
DEVICE Bytes<16> load_chunk(const __half* p) {
#if !defined(__CUDACC__)
    emulate::check_global(p, 16);
#endif
    return *reinterpret_cast<const Bytes<16>*>(p);
}

// Of an operand that stores f32 or f16.
template <int V>
DEVICE void load_floats(float (&values)[V], const Operand& o, uint32_t row, uint32_t col) {
    if (o.type == F16) {
        load_floats<V>(values, element<const __half>(o, row, col));
    } else {
        load_floats<V>(values, element<const float>(o, row, col));
    }
}
template <int V>
DEVICE void store_floats(const Operand& o, uint32_t row, uint32_t col, const float (&values)[V]) {
    if (o.type == F16) {
        store_floats<V>(element<__half>(o, row, col), values);
    } else {
        store_floats<V>(element<float>(o, row, col), values);
    }
}
