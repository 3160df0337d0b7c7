// Boxes from the distributions of their edges: a warp takes a query. See `dfine/integral.rs`.
#include "warp.cuh"

struct BoxIntegralParams {
    const float* logits;   // `[queries, 4, bins]`: left, top, right, bottom
    const float* initial;  // `[queries, 4]`: cx, cy, w, h
    const float* offsets;  // `[bins]`: of an edge, outwards, in widths or heights of the initial box
    float* boxes;          // `[queries, 4]`
    uint32_t queries, bins;
};

KERNEL(box_integral, BoxIntegralParams) {
    const uint32_t query = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (query >= p.queries) return;
    float moved[4];
#pragma unroll
    for (uint32_t edge = 0; edge < 4; edge++) {
        const float* const own = p.logits + (query * 4 + edge) * p.bins;
        float highest = -INFINITY;
        for (uint32_t n = lane; n < p.bins; n += 32) highest = fmaxf(highest, own[n]);
        highest = warp_max(highest);
        float total = 0.0f, sum = 0.0f;
        for (uint32_t n = lane; n < p.bins; n += 32) {
            const float weight = expf(own[n] - highest);
            total += weight;
            sum += weight * p.offsets[n];
        }
        moved[edge] = warp_sum(sum) / warp_sum(total);
    }
    // A lane for each axis.
    if (lane < 2) {
        const float* const from = p.initial + query * 4 + lane;
        float* const to = p.boxes + query * 4 + lane;
        const float before = lane == 0 ? moved[0] : moved[1], after = lane == 0 ? moved[2] : moved[3];
        to[0] = from[0] + 0.5f * (after - before) * from[2];
        to[2] = from[2] + (before + after) * from[2];
    }
}
