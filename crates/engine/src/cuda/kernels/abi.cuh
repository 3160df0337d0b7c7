// What every kernel and its launcher agree on: operands, row counts, how a kernel is declared, where shared memory
// comes from. Compiles under NVRTC and, with `../emulate` first in the include path, under a host C++ compiler.
//
//     struct DoubleParams { Operand x, out; Rows rows; };
//     KERNEL(double_rows, DoubleParams) {
//         uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
//         if (row >= valid_rows(p.rows)) return;
//         for (uint32_t c = 0; c < p.x.cols; c++) store(p.out, row, c, 2.0f * load(p.x, row, c));
//     }
//
// A kernel takes one struct of plain data, `p`; its twin in Rust is `#[repr(C)]`. Fields go from eight bytes to four,
// so that neither side pads between them.
#pragma once

#if defined(__CUDACC_RTC__)
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#elif defined(__CUDACC__)
#include <math.h>
#include <stdint.h>
#else
#include "shim.h"
#endif
#include <cuda_fp16.h>

#define DEVICE __device__ __forceinline__

#if defined(__CUDACC__)
// Returns when the kernel before this one in its branch is done and what it wrote can be read; then the one after it may
// begin. Where kernels do not overlap nothing waits: see `kernel_ptx`, which puts the instructions in place of these
// comments (PTX ISA, "griddepcontrol", sm_90).
DEVICE void wait_for_previous() {
    asm volatile("// overlap: wait" ::: "memory");
    asm volatile("// overlap: next" ::: "memory");
}
// A kernel, one that promises its largest block, and one of those that calls `wait_for_previous` itself, in every thread: until
// then it may read its parameters and constants.
#define KERNEL(name, Params) KERNEL_THAT_BEGINS(name, Params, , wait_for_previous())
#define KERNEL_BOUNDED(name, Params, max_threads) \
    KERNEL_THAT_BEGINS(name, Params, __launch_bounds__(max_threads), wait_for_previous())
#define KERNEL_EARLY(name, Params, max_threads) KERNEL_THAT_BEGINS(name, Params, __launch_bounds__(max_threads), )
#define KERNEL_THAT_BEGINS(name, Params, bounds, begin)                          \
    DEVICE void name##_body(const Params& p);                                    \
    extern "C" __global__ void bounds name(const __grid_constant__ Params p) {   \
        begin;                                                                   \
        name##_body(p);                                                          \
    }                                                                            \
    DEVICE void name##_body(const Params& p)
// A variable of the block: SHARED(float, sums, [8][33]); SHARED(int, best, ). It starts undefined.
#define SHARED(T, name, dims) __shared__ __align__(16) T name dims
// The launch's dynamic shared memory as an array of T, 16-byte aligned. The same memory wherever it is named.
#define DYNAMIC_SHARED(T, name)                                          \
    extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[]; \
    T* const name = reinterpret_cast<T*>(dynamic_shared_bytes)
#endif

// Element types, as the engine numbers them.
enum Type : uint32_t { F32 = 0, F16 = 1, I32 = 2, U8 = 3 };

// A matrix view: `rows` of `cols` elements, `pitch` elements from one row to the next. Feature maps [N, H, W, C] have
// N * H * W rows of C. Data and pitch are aligned to the element only, for a view may be a slice of a concatenation.
struct Operand {
    void* data;
    uint32_t rows, cols, pitch, type;
};
static_assert(sizeof(Operand) == 24, "as in Rust");

// How many rows are valid: all of `bound`, or as many as the counted entries have.
struct Rows {
    const int32_t* entries;
    uint32_t rows_per_entry, bound;
};
static_assert(sizeof(Rows) == 16, "as in Rust");

DEVICE uint32_t valid_rows(const Rows& rows) {
    if (!rows.entries) return rows.bound;
    int32_t entries = *rows.entries;
    uint64_t valid = uint64_t(entries > 0 ? entries : 0) * rows.rows_per_entry;
    return valid < rows.bound ? uint32_t(valid) : rows.bound;
}

// Address of an element; under emulation one outside the view ends the launch with a fault.
template <class T>
DEVICE T* element(const Operand& o, uint32_t row, uint32_t col) {
#if !defined(__CUDACC__)
    emulate::check_element(row, col, o.rows, o.cols);
#endif
    return static_cast<T*>(o.data) + size_t(row) * o.pitch + col;
}

// An element as a float, whatever the operand stores. For kernels that are not hot: the type is looked at each time.
DEVICE float load(const Operand& o, uint32_t row, uint32_t col) {
    switch (o.type) {
        case F32: return *element<const float>(o, row, col);
        case F16: return __half2float(*element<const __half>(o, row, col));
        case I32: return float(*element<const int32_t>(o, row, col));
        default: return float(*element<const uint8_t>(o, row, col));
    }
}

// Stores a float as the operand's type; f16 rounds to nearest. Integer operands are written by `element`.
DEVICE void store(const Operand& o, uint32_t row, uint32_t col, float value) {
    if (o.type == F32) {
        *element<float>(o, row, col) = value;
    } else {
        *element<__half>(o, row, col) = __float2half_rn(value);
    }
}

// Conversions for kernels that are templated on what they store.
DEVICE float to_float(float v) { return v; }
DEVICE float to_float(__half v) { return __half2float(v); }
template <class T>
DEVICE T from_float(float v);
template <>
DEVICE float from_float<float>(float v) { return v; }
template <>
DEVICE __half from_float<__half>(float v) { return __float2half_rn(v); }
