// The instructions that C++ has no words for, each with its twin on the host: asynchronous copies (PTX ISA, "cp.async"),
// prefetches ("prefetch"), exponentials and reciprocals ("ex2.approx", "rcp.approx"), matrix loads ("ldmatrix") and the tensor core's product ("mma.sync.m16n8k16"). All need sm_80.
#pragma once
#include "abi.cuh"

#if defined(__CUDACC__)

DEVICE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Copies the first `valid` of BYTES (4, 8 or 16) from global to shared memory and sets the rest to zero. Both addresses
// are aligned to BYTES. Done only after `copy_wait`. With `valid` 0 the source is not read.
template <int BYTES>
DEVICE void copy_async(void* shared, const void* global, uint32_t valid) {
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                     "r"(valid)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                     "n"(BYTES), "r"(valid)
                     : "memory");
    }
}
// Ends this thread's group of copies.
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most GROUPS of this thread's groups are under way.
template <int GROUPS>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// Asks for the 128 bytes around an address of global memory: they come to the L2 cache, and nobody waits for them.
DEVICE void prefetch(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

// Eight floats that other blocks of this launch have written: not from this multiprocessor's cache.
DEVICE void load_latest(float (&v)[8], const float* p) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(v[i]), "=f"(v[i + 1]), "=f"(v[i + 2]), "=f"(v[i + 3])
                     : "l"(p + i)
                     : "memory");
    }
}

// 2^x to 2 units in the last place; what is too small is 0.
DEVICE float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x to 1 unit in the last place.
DEVICE float reciprocal_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Four 8 x 8 matrices of f16: lane i brings the address of row i % 8 of matrix i / 8 (16 bytes, aligned), and gets of
// matrix j in r[j] the elements 2 * (i % 4) and the next one of row i / 4.
DEVICE void load_matrices(uint32_t (&r)[4], const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same with each matrix transposed.
DEVICE void load_matrices_transposed(uint32_t (&r)[4], const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// d[16 x 8] += a[16 x 16] * b[16 x 8], f16 products summed in f32. With g = lane / 4, t = lane % 4: a[i] holds row
// g + 8 * (i % 2), columns 2t + 8 * (i / 2) and the next; b[i] rows 2t + 8i and the next of column g; d[i] row
// g + 8 * (i / 2), column 2t + i % 2.
DEVICE void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

template <int BYTES>
void copy_async(void* shared, const void* global, uint32_t valid) {
    emulate::copy_async(shared, global, BYTES, valid);
}
inline void copy_commit() { emulate::copy_commit(); }
template <int GROUPS>
void copy_wait() {
    emulate::copy_wait(GROUPS);
}
inline void prefetch(const void* global) { emulate::check_global(global, 1); }
inline void load_latest(float (&v)[8], const float* p) {
    emulate::check_global(p, sizeof v);
    for (int i = 0; i < 8; i++) v[i] = p[i];
}
inline float exp2_approx(float x) { return std::exp2(x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }

namespace emulate {

struct MatrixLoad {
    const __half* row;
    uint32_t* r;
};
template <bool TRANSPOSED>
void load_matrices(void* const lanes[32]) {
    for (uint32_t i = 0; i < 32; i++) {
        if (!lanes[i]) fail("a matrix load without lane %u", i);
        check_shared(static_cast<MatrixLoad*>(lanes[i])->row, 16);
        if (reinterpret_cast<uintptr_t>(static_cast<MatrixLoad*>(lanes[i])->row) % 16) fail("a matrix row that is not aligned");
    }
    for (uint32_t i = 0; i < 32; i++) {
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t both = 0;
            for (uint32_t e = 0; e < 2; e++) {
                const uint32_t pair = i % 4 * 2 + e, other = i / 4;
                const uint32_t row = TRANSPOSED ? pair : other, col = TRANSPOSED ? other : pair;
                const __half value = static_cast<MatrixLoad*>(lanes[j * 8 + row])->row[col];
                both |= uint32_t(value.bits) << 16 * e;
            }
            static_cast<MatrixLoad*>(lanes[i])->r[j] = both;
        }
    }
}

struct Product {
    float* d;
    uint32_t a[4], b[2];
};
inline void multiply_16x8x16(void* const lanes[32]) {
    float a[16][16], b[16][8];
    for (uint32_t i = 0; i < 32; i++) {
        if (!lanes[i]) fail("a matrix product without lane %u", i);
        const Product& p = *static_cast<Product*>(lanes[i]);
        const uint32_t g = i / 4, t = i % 4;
        for (uint32_t j = 0; j < 4; j++) {
            for (uint32_t e = 0; e < 2; e++) {
                a[g + 8 * (j % 2)][2 * t + 8 * (j / 2) + e] = float_from_half(uint16_t(p.a[j] >> 16 * e));
            }
        }
        for (uint32_t j = 0; j < 2; j++) {
            for (uint32_t e = 0; e < 2; e++) b[2 * t + 8 * j + e][g] = float_from_half(uint16_t(p.b[j] >> 16 * e));
        }
    }
    float d[16][8] = {};
    for (uint32_t r = 0; r < 16; r++) {
        for (uint32_t k = 0; k < 16; k++) {
            for (uint32_t c = 0; c < 8; c++) d[r][c] += a[r][k] * b[k][c];
        }
    }
    for (uint32_t i = 0; i < 32; i++) {
        float* own = static_cast<Product*>(lanes[i])->d;
        for (uint32_t j = 0; j < 4; j++) own[j] += d[i / 4 + 8 * (j / 2)][2 * (i % 4) + j % 2];
    }
}

}  // namespace emulate

inline void load_matrices(uint32_t (&r)[4], const __half* row) {
    emulate::MatrixLoad own{row, r};
    emulate::meet(0xffffffff, emulate::load_matrices<false>, &own);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const __half* row) {
    emulate::MatrixLoad own{row, r};
    emulate::meet(0xffffffff, emulate::load_matrices<true>, &own);
}
inline void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    emulate::Product own{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulate::meet(0xffffffff, emulate::multiply_16x8x16, &own);
}

#endif
