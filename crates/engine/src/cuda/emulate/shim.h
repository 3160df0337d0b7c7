// CUDA C++ on the host, for tests on machines without a GPU: the part of the language that our kernels use.
//
// In: kernels that include `abi.cuh`, compiled by a C++20 compiler. Out: for each kernel NAME a function
// `NAME(params, grid, block, shared_bytes, seed)` that runs it, and `NAME_params_bytes`.
//
// Every CUDA thread is a fiber and runs until it waits for others. Which warp goes on then, which lane first, which
// block and when an asynchronous copy lands is drawn from `seed`: what is left to chance on the device is left to chance
// here, but repeats. Shared and global memory start as NaN and lie between guards. A fault ends the launch and is
// reported by `emulate_fault`: an access outside or not aligned, a barrier that not all threads reach, a launch that some
// device does not take.
//
// One launch at a time; launches from several host threads wait for one another.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __device__
#define __host__
#define __global__
#define __constant__ static const
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Allowed, but neither undefined at first nor guarded: prefer SHARED.
#define __shared__ static

struct uint3 { uint32_t x, y, z; };
struct dim3 { uint32_t x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int32_t x, y; };
struct alignas(16) int4 { int32_t x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int32_t x, int32_t y) { return {x, y}; }
inline int4 make_int4(int32_t x, int32_t y, int32_t z, int32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulate {

using Body = void (*)(const void* params);
// Computes for all lanes that meet; `lanes[i]` is what lane i brought, and null where it takes no part.
using WarpFunction = void (*)(void* const lanes[32]);

void launch(const char* name, Body body, const void* params, const uint32_t grid[3], const uint32_t block[3],
            uint32_t shared_bytes, uint32_t max_threads, uint64_t seed);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Waits until the lanes of `mask` that still run are here, then one of them calls `function` for all.
void meet(uint32_t mask, WarpFunction function, void* lane);
// Waits for the block; returns how many threads brought `true`.
uint32_t barrier(bool predicate, uint32_t* threads);
// Memory of the block, the same for every thread that passes the same key.
void* shared_variable(const void* key, size_t bytes);
void* dynamic_shared();
// Ends the launch unless the bytes are in the block's shared memory, or in one allocation of global memory.
void check_shared(const void* p, size_t bytes);
void check_global(const void* p, size_t bytes);
// What `wait_for_previous` of `abi.cuh` is here. Until a thread has called it, it may read constants only, and them not as
// elements of an operand; one that ends without it is a fault.
void wait_for_previous();
extern const bool* waited;
// `valid` bytes are copied and the rest of `bytes` becomes zero, at once or not before the matching wait.
void copy_async(void* shared, const void* global, uint32_t bytes, uint32_t valid);
void copy_commit();
void copy_wait(uint32_t groups_left);

inline void check_element(uint32_t row, uint32_t col, uint32_t rows, uint32_t cols) {
    if (row >= rows || col >= cols) [[unlikely]] {
        fail("element (%u, %u) of an operand of %u x %u", row, col, rows, cols);
    }
    if (!*waited) [[unlikely]] fail("reads or writes an operand before it waits for the previous kernel");
}

enum class Source { Index, Xor, Up, Down };

// A shuffle as CUDA defines it: within segments of `width` lanes, and a lane's own value where the source is outside.
template <class T>
T shuffle(uint32_t mask, T value, Source kind, uint32_t argument, uint32_t width) {
    struct Lane {
        T value, result;
        Source kind;
        uint32_t argument, width;
    } own{value, value, kind, argument, width};
    meet(mask, [](void* const lanes[32]) {
        for (uint32_t i = 0; i < 32; i++) {
            if (!lanes[i]) continue;
            Lane& lane = *static_cast<Lane*>(lanes[i]);
            const uint32_t first = i / lane.width * lane.width, last = first + lane.width - 1;
            int64_t from = i;
            switch (lane.kind) {
                case Source::Index: from = first + lane.argument % lane.width; break;
                case Source::Xor: from = i ^ lane.argument; break;
                case Source::Up: from = int64_t(i) - lane.argument; break;
                case Source::Down: from = int64_t(i) + lane.argument; break;
            }
            const bool below = lane.kind == Source::Up && from < int64_t(first);
            const bool above = lane.kind != Source::Up && from > int64_t(last);
            if (below || above) from = i;
            if (lanes[from]) {
                lane.result = static_cast<Lane*>(lanes[from])->value;
            } else {
                // A lane that takes no part has no value to give.
                std::memset(&lane.result, 0xff, sizeof(T));
            }
        }
    }, &own);
    return own.result;
}

struct Vote {
    bool predicate;
    uint32_t ballot;
};
inline uint32_t ballot(uint32_t mask, bool predicate) {
    Vote own{predicate, 0};
    meet(mask, [](void* const lanes[32]) {
        uint32_t ballot = 0;
        for (uint32_t i = 0; i < 32; i++) {
            if (lanes[i] && static_cast<Vote*>(lanes[i])->predicate) ballot |= 1u << i;
        }
        for (uint32_t i = 0; i < 32; i++) {
            if (lanes[i]) static_cast<Vote*>(lanes[i])->ballot = ballot;
        }
    }, &own);
    return own.ballot;
}

}  // namespace emulate

#define EMULATED __attribute__((visibility("default")))
#define KERNEL(name, Params) KERNEL_BOUNDED(name, Params, 1024)
#define KERNEL_BOUNDED(name, Params, max_threads) KERNEL_THAT_BEGINS(name, Params, max_threads, emulate::wait_for_previous())
#define KERNEL_EARLY(name, Params, max_threads) KERNEL_THAT_BEGINS(name, Params, max_threads, )
#define KERNEL_THAT_BEGINS(name, Params, max_threads, begin)                                                  \
    static void name##_body(const Params& p);                                                                 \
    extern "C" {                                                                                              \
    EMULATED uint32_t name##_params_bytes = sizeof(Params);                                                   \
    EMULATED void name(const void* params, const uint32_t grid[3], const uint32_t block[3],                   \
                       uint32_t shared_bytes, uint64_t seed) {                                                \
        static_assert(std::is_trivially_copyable_v<Params> && alignof(Params) <= 8);                          \
        const auto body = [](const void* p) {                                                                 \
            begin;                                                                                            \
            name##_body(*static_cast<const Params*>(p));                                                      \
        };                                                                                                    \
        emulate::launch(#name, body, params, grid, block, shared_bytes, max_threads, seed);                   \
    }                                                                                                         \
    }                                                                                                         \
    static void name##_body(const Params& p)
// The static inside the lambda is one for each place, and for each instantiation of a template around it.
#define SHARED(T, name, dims)                                                                  \
    using name##_shared = T dims;                                                              \
    name##_shared& name = *static_cast<name##_shared*>(emulate::shared_variable(               \
        [] { static const char key = 0; return static_cast<const void*>(&key); }(), sizeof(name##_shared)))
#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(emulate::dynamic_shared())

inline void wait_for_previous() { emulate::wait_for_previous(); }
inline void __syncthreads() { emulate::barrier(false, nullptr); }
inline int __syncthreads_count(int v) { return int(emulate::barrier(v != 0, nullptr)); }
inline int __syncthreads_or(int v) { return emulate::barrier(v != 0, nullptr) > 0; }
inline int __syncthreads_and(int v) {
    uint32_t threads = 0;
    const uint32_t yes = emulate::barrier(v != 0, &threads);
    return yes == threads;
}
inline void __syncwarp(uint32_t mask = 0xffffffff) {
    char nothing = 0;
    emulate::meet(mask, [](void* const*) {}, &nothing);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(uint32_t mask, T v, int lane, int width = 32) {
    return emulate::shuffle(mask, v, emulate::Source::Index, uint32_t(lane), uint32_t(width));
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T v, int bits, int width = 32) {
    return emulate::shuffle(mask, v, emulate::Source::Xor, uint32_t(bits), uint32_t(width));
}
template <class T>
T __shfl_up_sync(uint32_t mask, T v, unsigned by, int width = 32) {
    return emulate::shuffle(mask, v, emulate::Source::Up, by, uint32_t(width));
}
template <class T>
T __shfl_down_sync(uint32_t mask, T v, unsigned by, int width = 32) {
    return emulate::shuffle(mask, v, emulate::Source::Down, by, uint32_t(width));
}
inline uint32_t __ballot_sync(uint32_t mask, int v) { return emulate::ballot(mask, v != 0); }
inline int __any_sync(uint32_t mask, int v) { return emulate::ballot(mask, v != 0) != 0; }
inline int __all_sync(uint32_t mask, int v) { return emulate::ballot(mask, v == 0) == 0; }

// Fibers change places only where they wait, so plain updates are atomic.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) { T old = *p; *p = old + v; return old; }
template <class T>
T atomicSub(T* p, std::type_identity_t<T> v) { T old = *p; *p = old - v; return old; }
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) { T old = *p; if (v > old) *p = v; return old; }
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) { T old = *p; if (v < old) *p = v; return old; }
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) { T old = *p; *p = v; return old; }
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) { T old = *p; *p = old | v; return old; }
template <class T>
T atomicAnd(T* p, std::type_identity_t<T> v) { T old = *p; *p = old & v; return old; }
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
    T old = *p;
    if (old == expected) *p = v;
    return old;
}

template <class T>
T __ldg(const T* p) { return *p; }
template <class To, class From>
To __emulated_bits(From v) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &v, sizeof to);
    return to;
}
inline uint32_t __float_as_uint(float v) { return __emulated_bits<uint32_t>(v); }
inline int32_t __float_as_int(float v) { return __emulated_bits<int32_t>(v); }
inline float __uint_as_float(uint32_t v) { return __emulated_bits<float>(v); }
inline float __int_as_float(int32_t v) { return __emulated_bits<float>(v); }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float v) { return std::sqrt(v); }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline int __popc(uint32_t v) { return __builtin_popcount(v); }
inline int __popcll(uint64_t v) { return __builtin_popcountll(v); }
inline int __clz(int32_t v) { return v ? __builtin_clz(uint32_t(v)) : 32; }
inline int __clzll(int64_t v) { return v ? __builtin_clzll(uint64_t(v)) : 64; }
inline int __ffs(int32_t v) { return __builtin_ffs(v); }
inline int __ffsll(int64_t v) { return __builtin_ffsll(v); }
template <class A, class B>
auto min(A a, B b) { using T = std::common_type_t<A, B>; return T(b) < T(a) ? T(b) : T(a); }
template <class A, class B>
auto max(A a, B b) { using T = std::common_type_t<A, B>; return T(a) < T(b) ? T(b) : T(a); }
// As in CUDA, floats compare like fminf and fmaxf: a NaN loses.
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }

extern "C" {
// Global memory: `bytes` of NaN between guards, which every launch checks. Null when there is no memory.
EMULATED void* emulate_allocate(uint64_t bytes);
// The same for what no kernel writes.
EMULATED void* emulate_allocate_constants(uint64_t bytes);
// Gives it back; a guard that was overwritten is a fault.
EMULATED void emulate_free(void* memory);
// The first fault of the calling thread's launches since its last call, in a sentence, or null. The text lives until its
// next call.
EMULATED const char* emulate_fault();
}
