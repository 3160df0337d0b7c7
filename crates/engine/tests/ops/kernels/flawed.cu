// A kernel with mistakes to choose from: the emulation has to find each of them.
//
// Each slice of 128 elements comes to shared memory by asynchronous copies; every thread adds up what the thread opposite
// of it brought. Then each warp reverses its sums in memory of its own.
#include "ptx.cuh"

enum Flaw : uint32_t {
    SOUND = 0,
    NO_WAIT_FOR_COPIES = 1,
    NO_BARRIER_AFTER_COPIES = 2,
    NO_BARRIER_BEFORE_NEXT_COPIES = 3,
    NO_WARP_BARRIER = 4,
    BARRIER_FOR_SOME = 5,
    PAST_SHARED_VARIABLE = 6,
    PAST_DYNAMIC_MEMORY = 7,
    PAST_OPERAND = 8,
    UNDEFINED_SHARED_MEMORY = 9,
    PAST_ALLOCATION = 10,
    NOT_ALIGNED = 11,
    NO_WAIT_FOR_PREVIOUS = 12,
};

struct FlawedParams {
    Operand x, out;
    uint32_t flaw, slices;
};

KERNEL_EARLY(flawed, FlawedParams, 128) {
    if (p.flaw != NO_WAIT_FOR_PREVIOUS) wait_for_previous();
    SHARED(float, slice, [128]);
    DYNAMIC_SHARED(float, sums);
    const uint32_t t = threadIdx.x;
    float sum = 0.0f;
    for (uint32_t i = 0; i < p.slices; i++) {
        copy_async<4>(&slice[t], element<const float>(p.x, 0, i * 128 + t), 4);
        copy_commit();
        if (p.flaw != NO_WAIT_FOR_COPIES) copy_wait<0>();
        if (p.flaw != NO_BARRIER_AFTER_COPIES) __syncthreads();
        sum += slice[127 - t];
        if (p.flaw != NO_BARRIER_BEFORE_NEXT_COPIES) __syncthreads();
    }
    sums[t] = sum;
    if (p.flaw != NO_WARP_BARRIER) __syncwarp();
    const float reversed = sums[t / 32 * 32 + 31 - t % 32];
    if (p.flaw == BARRIER_FOR_SOME) {
        // The other lanes of the warp wait for these, which wait for the others.
        if (t % 2) __syncthreads();
        __syncwarp();
    }
    if (p.flaw == PAST_SHARED_VARIABLE && t == 127) slice[t + 1] = 0.0f;
    if (p.flaw == PAST_DYNAMIC_MEMORY && t == 127) sums[t + 1] = 0.0f;
    if (p.flaw == PAST_OPERAND && t == 127) store(p.out, 0, t + 1, 0.0f);
    // The operand is the first of its allocation.
    if (p.flaw == PAST_ALLOCATION && t == 127) static_cast<float*>(p.x.data)[-1] = 0.0f;
    if (p.flaw == NOT_ALIGNED && t == 127) *reinterpret_cast<float2*>(sums + 1) = make_float2(0.0f, 0.0f);
    SHARED(float, undefined, [128]);
    store(p.out, 0, t, p.flaw == UNDEFINED_SHARED_MEMORY ? undefined[t] : reversed);
}
