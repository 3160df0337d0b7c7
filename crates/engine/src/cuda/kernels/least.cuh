// The least of what the threads of a block bring, ties decided by a tag: the same answer whatever order they come in.
#pragma once
#include "warp.cuh"

// Numbers as integers of the same order; both zeros are one. Not for NaN.
DEVICE uint64_t ordered(double value) {
    union {
        double value;
        uint64_t bits;
    } u;
    u.value = value + 0.0;
    return u.bits ^ ((u.bits >> 63) != 0 ? ~uint64_t(0) : uint64_t(1) << 63);
}

DEVICE double number(uint64_t key) {
    union {
        uint64_t bits;
        double value;
    } u;
    u.bits = key ^ ((key >> 63) != 0 ? uint64_t(1) << 63 : ~uint64_t(0));
    return u.value;
}

struct Least {
    uint64_t key;
    uint32_t tag;

    DEVICE bool before(const Least& other) const { return key < other.key || (key == other.key && tag < other.tag); }
};

// What a thread brings that has nothing.
DEVICE Least nothing() { return {~uint64_t(0), 0xffffffffu}; }

DEVICE Least warp_least(const Least& mine) {
    const uint32_t high = warp_min(uint32_t(mine.key >> 32));
    const bool highest = uint32_t(mine.key >> 32) == high;
    const uint32_t low = warp_min(highest ? uint32_t(mine.key) : 0xffffffffu);
    const bool is_least = highest && uint32_t(mine.key) == low;
    return {uint64_t(high) << 32 | low, warp_min(is_least ? mine.tag : 0xffffffffu)};
}

// Between the warps of a block, in shared memory. Two sets in turn: one may be read while the next is written.
struct LeastOfWarps {
    uint64_t keys[2][32];
    uint32_t tags[2][32];
};

// Called by all threads of a block of whole warps, and a barrier for what they wrote before; `turn` is each thread's own and starts at 0.
DEVICE Least block_least(const Least& mine, LeastOfWarps& room, uint32_t& turn) {
    Least least = warp_least(mine);
    const uint32_t warps = blockDim.x / 32, lane = threadIdx.x % 32;
    if (warps == 1) {
        __syncwarp();
        return least;
    }
    turn ^= 1;
    if (lane == 0) {
        room.keys[turn][threadIdx.x / 32] = least.key;
        room.tags[turn][threadIdx.x / 32] = least.tag;
    }
    __syncthreads();
    least = lane < warps ? Least{room.keys[turn][lane], room.tags[turn][lane]} : nothing();
    return warp_least(least);
}
