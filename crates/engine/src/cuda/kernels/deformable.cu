// Weighted sums of bilinear samples of feature maps (X. Zhu et al., "Deformable DETR", ICLR 2021, equation 3), zeros outside.
// A point lies at the centre of its query's box plus an offset in shares of the box; its weight is the softmax over its head's
// points. Coordinates and weights are f32 whatever the maps store.
#include "access.cuh"

constexpr uint32_t MAX_LEVELS = 8;

struct DeformableParams {
    Operand value;    // `[pixels of all levels, heads * d]`
    Operand offsets;  // `[queries, heads * points * 2]`: x and y
    Operand logits;   // `[queries, heads * points]`
    Operand boxes;    // `[queries, 4]`: centre, width, height, 0 to 1 across each map
    Operand out;      // `[queries, heads * d]`
    Rows rows;        // of `out`
    uint32_t heads, points, levels;
    uint32_t width;  // channels a thread: 8, 4 or 1; heads and rows of value and out start at multiples of it
    uint32_t heights[MAX_LEVELS], widths[MAX_LEVELS], level_points[MAX_LEVELS];
};

template <int V>
DEVICE void sample(const DeformableParams& p, uint32_t index) {
    const uint32_t packs = p.out.cols / V, row = index / packs, channel = index % packs * V;
    if (row >= valid_rows(p.rows)) return;
    const uint32_t head = channel / (p.out.cols / p.heads);
    float sum[V];
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] = 0.0f;
    float box[4];
#pragma unroll
    for (int i = 0; i < 4; i++) box[i] = load(p.boxes, row, i);
    // Each thread for itself: the few logits are in the cache.
    uint32_t point = head * p.points, first = 0;
    float highest = -INFINITY, total = 0.0f;
    for (uint32_t n = 0; n < p.points; n++) highest = fmaxf(highest, load(p.logits, row, point + n));
    for (uint32_t n = 0; n < p.points; n++) total += expf(load(p.logits, row, point + n) - highest);
    const float scale = 1.0f / total;
    for (uint32_t level = 0; level < p.levels; level++) {
        const int32_t h = int32_t(p.heights[level]), w = int32_t(p.widths[level]);
        for (uint32_t n = 0; n < p.level_points[level]; n++, point++) {
            const float x = (box[0] + load(p.offsets, row, 2 * point) * box[2]) * float(w) - 0.5f;
            const float y = (box[1] + load(p.offsets, row, 2 * point + 1) * box[3]) * float(h) - 0.5f;
            // No corner of the sample is inside, or it is not a number.
            if (!(x > -1.0f && y > -1.0f && x < float(w) && y < float(h))) continue;
            const float weight = expf(load(p.logits, row, point) - highest) * scale;
            const float left = floorf(x), top = floorf(y), across = x - left, down = y - top;
            const int32_t x0 = int32_t(left), y0 = int32_t(top);
#pragma unroll
            for (int corner = 0; corner < 4; corner++) {
                const int32_t cx = x0 + corner % 2, cy = y0 + corner / 2;
                if (cx < 0 || cy < 0 || cx >= w || cy >= h) continue;
                const float share = (corner % 2 ? across : 1.0f - across) * (corner / 2 ? down : 1.0f - down);
                float values[V];
                load_floats<V>(values, p.value, first + uint32_t(cy) * uint32_t(w) + uint32_t(cx), channel);
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += weight * share * values[i];
            }
        }
        first += uint32_t(h) * uint32_t(w);
    }
    store_floats<V>(p.out, row, channel, sum);
}

KERNEL(deformable_attention, DeformableParams) {
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (p.width == 8) {
        sample<8>(p, index);
    } else if (p.width == 4) {
        sample<4>(p, index);
    } else {
        sample<1>(p, index);
    }
}
