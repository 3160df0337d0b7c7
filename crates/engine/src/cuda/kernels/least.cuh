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

// Entries of a set, of which each warp's lanes get one each.
DEVICE void bring(LeastOfWarps& room, uint32_t turn, uint32_t entry, const Least& least) {
    room.keys[turn][entry] = least.key;
    room.tags[turn][entry] = least.tag;
}
DEVICE Least entry_of_lane(const LeastOfWarps& room, uint32_t turn, uint32_t count) {
    const uint32_t lane = threadIdx.x % 32;
    return lane < count ? Least{room.keys[turn][lane], room.tags[turn][lane]} : nothing();
}

// The least of a block. Called by all threads of a block of whole warps, and a barrier for what they wrote before; `turn` is each
// thread's own and starts at 0.
DEVICE Least block_least(const Least& mine, LeastOfWarps& room, uint32_t& turn) {
    const Least least = warp_least(mine);
    const uint32_t warps = blockDim.x / 32;
    if (warps == 1) {
        __syncwarp();
        return least;
    }
    turn ^= 1;
    if (threadIdx.x % 32 == 0) bring(room, turn, threadIdx.x / 32, least);
    __syncthreads();
    return warp_least(entry_of_lane(room, turn, warps));
}

// The two least of a block of at most 16 warps, of which each thread brings its own two; tags are distinct. Otherwise as
// `block_least`.
DEVICE void block_least_two(Least& first, Least& second, LeastOfWarps& room, uint32_t& turn) {
    const Least best = warp_least(first), next = warp_least(first.tag == best.tag ? second : first);
    first = best;
    second = next;
    const uint32_t warps = blockDim.x / 32;
    if (warps == 1) {
        __syncwarp();
        return;
    }
    turn ^= 1;
    if (threadIdx.x % 32 == 0) {
        bring(room, turn, threadIdx.x / 32, best);
        bring(room, turn, warps + threadIdx.x / 32, next);
    }
    __syncthreads();
    const Least mine = entry_of_lane(room, turn, 2 * warps);
    first = warp_least(mine);
    second = warp_least(mine.tag == first.tag ? nothing() : mine);
}
