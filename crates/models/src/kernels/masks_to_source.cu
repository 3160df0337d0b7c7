// Low-resolution logits to the frame's size: as they are, or as bits with the area and the box of each mask. See
// `mobile_sam/postprocess.rs` and `mask_filter.rs`: two bilinear steps, which are one filter of three taps along each axis.
#include "exact.cuh"
#include "warp.cuh"

constexpr uint32_t TAPS = 3;
constexpr uint32_t TILE_H = 8, TILE_W = 256;  // pixels of a block: a warp a line, a thread eight neighbours

struct MasksToSourceParams {
    const float* logits;   // `[masks, low, low]`
    const int32_t* count;  // of boxes, or null: all masks are valid
    const float* boxes;    // `[.., 4]` xyxy in pixels of the input, or null
    uint8_t* bits;         // `[masks, height, row_bytes]`; for `masks_to_source`
    int32_t* partials;     // `[masks, tiles, 5]`: area, then x1, y1, x2, y2 of what a tile has
    int32_t* area;         // `[masks]`
    int32_t* around;       // `[masks, 4]`
    float* enlarged;       // `[masks, height, width]`; for `logits_to_source`
    uint32_t masks, masks_per_count, masks_per_box;
    uint32_t low, input, resized_height, resized_width, height, width;
    float margin;
};

// For a pixel along an axis, its first sample and the weights of that one and the next.
struct Filter {
    uint32_t first;
    float weights[TAPS];
};

// Where output sample `i` lies among `input` samples: the one before it and the share of the next.
DEVICE uint32_t bilinear(uint32_t i, uint32_t input, uint32_t output, double& share) {
    const double position = fmax(sub(mul(add(double(i), 0.5), double(input)) / double(output), 0.5), 0.0);
    const uint32_t before = min(uint32_t(position), input - 1);
    share = sub(position, double(before));
    return before;
}

DEVICE Filter filter_of(uint32_t pixel, uint32_t low, uint32_t input, uint32_t resized, uint32_t source) {
    double share, low_share, taps[TAPS] = {0.0, 0.0, 0.0};
    const uint32_t at = bilinear(pixel, resized, source, share);
    const uint32_t first = min(bilinear(at, low, input, low_share), low - TAPS);
    for (uint32_t step = 0; step < 2; step++) {
        const double part = step == 0 ? sub(1.0, share) : share;
        const uint32_t from = bilinear(min(at + step, resized - 1), low, input, low_share);
        const uint32_t here = from - first, next = min(from + 1, low - 1) - first;
        for (uint32_t t = 0; t < TAPS; t++) {
            if (t == here) taps[t] = add(taps[t], mul(part, sub(1.0, low_share)));
            if (t == next) taps[t] = add(taps[t], mul(part, low_share));
        }
    }
    return {first, {float(taps[0]), float(taps[1]), float(taps[2])}};
}

// Filters of a tile, in shared memory.
struct TileFilters {
    Filter rows[TILE_H];
    Filter cols[TILE_W];
};

DEVICE void fill(TileFilters& filters, const MasksToSourceParams& p, uint32_t top, uint32_t left) {
    for (uint32_t i = threadIdx.x; i < TILE_H + TILE_W; i += blockDim.x) {
        if (i < TILE_H) {
            filters.rows[i] = filter_of(min(top + i, p.height - 1), p.low, p.input, p.resized_height, p.height);
        } else {
            const uint32_t x = min(left + i - TILE_H, p.width - 1);
            filters.cols[i - TILE_H] = filter_of(x, p.low, p.input, p.resized_width, p.width);
        }
    }
    __syncthreads();
}

DEVICE float pixel(const float* logits, uint32_t low, const Filter& row, const Filter& col) {
    float lines[TAPS];
#pragma unroll
    for (uint32_t t = 0; t < TAPS; t++) {
        const float* const from = logits + size_t(row.first + t) * low + col.first;
        lines[t] = add(add(mul(col.weights[0], from[0]), mul(col.weights[1], from[1])), mul(col.weights[2], from[2]));
    }
    return add(add(mul(row.weights[0], lines[0]), mul(row.weights[1], lines[1])), mul(row.weights[2], lines[2]));
}

DEVICE uint32_t valid_masks(const MasksToSourceParams& p) {
    if (!p.count) return p.masks;
    const uint64_t counted = uint64_t(max(*p.count, 0)) * p.masks_per_count;
    return counted < p.masks ? uint32_t(counted) : p.masks;
}

struct Range {
    uint32_t start, end;
};

// Pixels along an axis (0: x) that a mask may cover.
DEVICE Range allowed(const MasksToSourceParams& p, uint32_t mask, uint32_t axis) {
    const uint32_t source = axis == 0 ? p.width : p.height, resized = axis == 0 ? p.resized_width : p.resized_height;
    if (!p.boxes) return {0, source};
    const float* const box = p.boxes + size_t(mask / p.masks_per_box) * 4;
    const double low = box[axis], high = box[axis + 2];
    const double grow = mul(double(p.margin), sub(high, low)), scale = double(source) / double(resized);
    // A NaN becomes 0, as on the host.
    const double start = fmax(ceil(sub(mul(sub(low, grow), scale), 0.5)), 0.0);
    const double end = fmax(floor(add(mul(add(high, grow), scale), 0.5)), 0.0);
    const uint32_t last = uint32_t(fmin(end, double(source)));
    return {min(uint32_t(fmin(start, double(source))), last), last};
}

KERNEL_BOUNDED(masks_to_source, MasksToSourceParams, 32 * TILE_H) {
    SHARED(TileFilters, filters, );
    SHARED(int32_t, of_warps, [TILE_H][5]);
    const uint32_t mask = blockIdx.z, lane = threadIdx.x % 32, line = threadIdx.x / 32;
    if (mask >= valid_masks(p)) return;
    const uint32_t top = blockIdx.y * TILE_H, left = blockIdx.x * TILE_W, row_bytes = (p.width + 7) / 8;
    const Range columns = allowed(p, mask, 0), rows = allowed(p, mask, 1);
    const bool any = columns.start < min(columns.end, left + TILE_W) && columns.end > left &&
                     rows.start < min(rows.end, top + TILE_H) && rows.end > top;
    if (any) fill(filters, p, top, left);

    const uint32_t x = left + lane * 8, y = top + line;
    uint32_t byte = 0;
    if (any && y >= rows.start && y < rows.end) {
        const float* const logits = p.logits + size_t(mask) * p.low * p.low;
        for (uint32_t i = 0; i < 8; i++) {
            if (x + i < columns.start || x + i >= columns.end) continue;
            if (pixel(logits, p.low, filters.rows[line], filters.cols[lane * 8 + i]) > 0.0f) byte |= 1u << i;
        }
    }
    if (y < p.height && x < p.width) p.bits[(size_t(mask) * p.height + y) * row_bytes + x / 8] = uint8_t(byte);

    const uint32_t area = warp_sum(uint32_t(__popc(byte)));
    const uint32_t first = warp_min(byte != 0 ? x + uint32_t(__ffs(int(byte))) - 1 : 0xffffffffu);
    // One past the last, as a minimum too.
    const uint32_t end = ~warp_min(byte != 0 ? ~(x + 32 - uint32_t(__clz(int(byte)))) : 0xffffffffu);
    if (lane == 0) {
        of_warps[line][0] = int32_t(area);
        of_warps[line][1] = int32_t(first);
        of_warps[line][2] = int32_t(y);
        of_warps[line][3] = int32_t(end);
        of_warps[line][4] = int32_t(y + 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int32_t whole[5] = {0, 0x7fffffff, 0x7fffffff, 0, 0};
        for (uint32_t w = 0; w < TILE_H; w++) {
            if (of_warps[w][0] == 0) continue;
            whole[0] += of_warps[w][0];
            for (int i = 1; i < 5; i++) whole[i] = i < 3 ? min(whole[i], of_warps[w][i]) : max(whole[i], of_warps[w][i]);
        }
        const uint32_t tiles = gridDim.x * gridDim.y, tile = blockIdx.y * gridDim.x + blockIdx.x;
        for (int i = 0; i < 5; i++) p.partials[(size_t(mask) * tiles + tile) * 5 + i] = whole[i];
    }
}

// What the tiles of a mask have together: a warp a mask.
KERNEL(measure_masks, MasksToSourceParams) {
    const uint32_t mask = blockIdx.x, tiles = (p.width + TILE_W - 1) / TILE_W * ((p.height + TILE_H - 1) / TILE_H);
    uint32_t area = 0, least[4] = {0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu};
    if (mask < valid_masks(p)) {
        for (uint32_t tile = threadIdx.x; tile < tiles; tile += 32) {
            const int32_t* const part = p.partials + (size_t(mask) * tiles + tile) * 5;
            if (part[0] == 0) continue;
            area += uint32_t(part[0]);
            // Of the ends the largest, as a minimum.
            for (int i = 0; i < 4; i++) {
                const uint32_t at = uint32_t(part[i + 1]);
                least[i] = min(least[i], i < 2 ? at : ~at);
            }
        }
    }
    area = warp_sum(area);
    for (int i = 0; i < 4; i++) {
        const uint32_t at = warp_min(least[i]);
        if (threadIdx.x == 0) p.around[mask * 4 + i] = area == 0 ? 0 : int32_t(i < 2 ? at : ~at);
    }
    if (threadIdx.x == 0) p.area[mask] = int32_t(area);
}

KERNEL_BOUNDED(logits_to_source, MasksToSourceParams, 32 * TILE_H) {
    SHARED(TileFilters, filters, );
    const uint32_t mask = blockIdx.z, lane = threadIdx.x % 32, line = threadIdx.x / 32;
    if (mask >= valid_masks(p)) return;
    const uint32_t top = blockIdx.y * TILE_H, left = blockIdx.x * TILE_W, y = top + line;
    fill(filters, p, top, left);
    if (y >= p.height) return;
    const float* const logits = p.logits + size_t(mask) * p.low * p.low;
    for (uint32_t i = lane; i < TILE_W && left + i < p.width; i += 32) {
        p.enlarged[(size_t(mask) * p.height + y) * p.width + left + i] =
            pixel(logits, p.low, filters.rows[line], filters.cols[i]);
    }
}
