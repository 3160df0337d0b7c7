// Weighted sums of bilinear samples of feature maps (X. Zhu et al., "Deformable DETR", ICLR 2021, equation 3), zeros outside.
// A point lies at the centre of its query's box plus an offset in shares of the box; its weight is the softmax over its head's
// points. Coordinates and weights are f32 whatever the maps store.
#include "access.cuh"
#include "warp.cuh"

constexpr uint32_t MAX_LEVELS = 8;

struct DeformableParams {
    Operand value;    // `[pixels of all levels, heads * d]`
    Operand offsets;  // `[queries, heads * points * 2]`, f32: x and y
    Operand logits;   // `[queries, heads * points]`, f32
    Operand boxes;    // `[queries, 4]`, f32: centre, width, height, 0 to 1 across each map
    Operand out;      // `[queries, heads * d]`
    Rows rows;        // of `out`
    uint32_t heads, points, levels;
    uint32_t width;  // channels at once: 8, 4 or 1; heads and rows of value and out start at multiples of it
    uint32_t heights[MAX_LEVELS], widths[MAX_LEVELS], level_points[MAX_LEVELS];
};

// One head of one query, by a warp: its lanes share the points and the packs of V channels, so that all samples are on their way
// at once.
template <class T, int V>
DEVICE void sample(const DeformableParams& p, uint32_t row, uint32_t head) {
    const uint32_t lane = threadIdx.x % 32, d = p.out.cols / p.heads, packs = d / V;
    const float* const box = element<const float>(p.boxes, row, 0);
    const float* const offsets = element<const float>(p.offsets, row, head * p.points * 2);
    const float* const logits = element<const float>(p.logits, row, head * p.points);
    float highest = -INFINITY, total = 0.0f;
    for (uint32_t n = lane; n < p.points; n += 32) highest = fmaxf(highest, logits[n]);
    highest = warp_max(highest);
    for (uint32_t n = lane; n < p.points; n += 32) total += expf(logits[n] - highest);
    const float scale = 1.0f / warp_sum(total);

    for (uint32_t base = 0; base < packs; base += 32) {
        const uint32_t across = packs - base < 32 ? packs - base : 32, slots = 32 / across, slot = lane / across;
        const uint32_t channel = head * d + (base + lane % across) * V;
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0.0f;
        for (uint32_t point = slot < slots ? slot : p.points; point < p.points; point += slots) {
            uint32_t level = 0, first = 0, end = p.level_points[0];
            while (point >= end) {
                first += p.heights[level] * p.widths[level];
                end += p.level_points[++level];
            }
            const int32_t h = int32_t(p.heights[level]), w = int32_t(p.widths[level]);
            const float x = (box[0] + offsets[2 * point] * box[2]) * float(w) - 0.5f;
            const float y = (box[1] + offsets[2 * point + 1] * box[3]) * float(h) - 0.5f;
            // No corner of the sample is inside, or it is not a number.
            if (!(x > -1.0f && y > -1.0f && x < float(w) && y < float(h))) continue;
            const float weight = expf(logits[point] - highest) * scale;
            const float left = floorf(x), top = floorf(y), right = x - left, down = y - top;
            const int32_t x0 = int32_t(left), y0 = int32_t(top);
#pragma unroll
            for (int corner = 0; corner < 4; corner++) {
                const int32_t cx = x0 + corner % 2, cy = y0 + corner / 2;
                if (cx < 0 || cy < 0 || cx >= w || cy >= h) continue;
                const float share = (corner % 2 ? right : 1.0f - right) * (corner / 2 ? down : 1.0f - down);
                float values[V];
                load_floats<V>(values, element<const T>(p.value, first + uint32_t(cy) * uint32_t(w) + uint32_t(cx), channel));
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += weight * share * values[i];
            }
        }
        for (uint32_t other = 16; other > 0; other /= 2) {
            if (other >= slots) continue;
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float more = __shfl_down_sync(0xffffffffu, sum[i], other * across);
                if (slot + other < slots) sum[i] += more;
            }
        }
        if (slot == 0) store_floats<V>(p.out, row, channel, sum);
    }
}

template <class T>
DEVICE void sample(const DeformableParams& p, uint32_t row, uint32_t head) {
    switch (p.width) {
        case 8: return sample<T, 8>(p, row, head);
        case 4: return sample<T, 4>(p, row, head);
        default: return sample<T, 1>(p, row, head);
    }
}

KERNEL(deformable_attention, DeformableParams) {
    const uint32_t unit = (blockIdx.x * blockDim.x + threadIdx.x) / 32, row = unit / p.heads, head = unit % p.heads;
    if (row >= valid_rows(p.rows)) return;
    if (p.value.type == F16) {
        sample<__half>(p, row, head);
    } else {
        sample<float>(p, row, head);
    }
}
