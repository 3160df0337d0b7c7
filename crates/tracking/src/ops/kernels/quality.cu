// How well objects show: see `quality/`, whose steps and names these are. A block a row of the memory does the object that the row
// belongs to, or keeps the row; the last block clears the scores of objects without a row.
#include "exact.cuh"

constexpr uint32_t CELLS = 64, BLOCKS = 16, SIDE = CELLS / BLOCKS, SCORES = 6;
constexpr int32_t OBJECT_CELLS = 48, FARTHEST_PX = 1 << 20, MAX_SAMPLES = 3, GREY = 16;
constexpr uint32_t RING_CELLS = 6, MAX_PARTS = 16, REACH = 2;
constexpr uint32_t BITS_AT = 6, BLOCKS_AT = BITS_AT + 2 * CELLS, MEMORY_LEN = BLOCKS_AT + BLOCKS * BLOCKS;
constexpr float HALF_SHARP = 24.0f, LEAST_STEP = 8.0f, LEAST_VARIANCE = 1152.0f, PARTS = 65536.0f;

struct QualityConfig {
    float weights[SCORES - 1];
    float least;
};

struct QualityParams {
    const uint8_t* frame;      // `[height, width, channels]`
    const uint8_t* mask_bits;  // `[most, height, ceil(width / 8)]`
    const int32_t* box_xyxy;   // `[most, 4]`
    const int32_t* count;
    const int32_t* slots;      // `[most]`
    const int32_t* keys;       // `[most]`
    const float* motion;       // `[6]`
    const int32_t* memory;     // `[rows, MEMORY_LEN]`
    float* scores;             // `[most, SCORES]`
    int32_t* core_xyxy;        // `[most, 4]`
    int32_t* next;             // `[rows, MEMORY_LEN]`
    QualityConfig config;
    uint32_t height, width, channels, most, rows, reserved;
};

// An object on its grid, in shared memory.
struct Grid {
    uint64_t valid[CELLS], mask[CELLS], near[CELLS], far[CELLS], rest[CELLS], part[CELLS], grown[CELLS], best[CELLS];
    uint64_t squares[2][CELLS];
    uint32_t numbers[2][CELLS], sums[2][CELLS];
    uint32_t outline[CELLS], sharpness[CELLS], continuous[CELLS], common[CELLS];
    int32_t blocks[BLOCKS * BLOCKS];
    float difference;
    uint32_t changed;
    uint16_t greys[CELLS][CELLS];
};

struct Region {
    int32_t x, y, cell_px;
};

DEVICE bool has(uint64_t row, uint32_t column) { return (row >> column & 1) == 1; }
DEVICE uint32_t popcount(uint64_t row) { return uint32_t(__popc(uint32_t(row)) + __popc(uint32_t(row >> 32))); }
DEVICE int32_t lowest(uint64_t row) {
    return uint32_t(row) != 0 ? __ffs(int(uint32_t(row))) - 1 : 31 + __ffs(int(uint32_t(row >> 32)));
}
DEVICE int32_t highest(uint64_t row) {
    return uint32_t(row >> 32) != 0 ? 63 - __clz(int(uint32_t(row >> 32))) : 31 - __clz(int(uint32_t(row)));
}

DEVICE int32_t grey(const QualityParams& p, int32_t x, int32_t y) {
    const uint32_t column = uint32_t(min(max(x, 0), int32_t(p.width) - 1)), row = uint32_t(min(max(y, 0), int32_t(p.height) - 1));
    const uint8_t* const at = p.frame + (size_t(row) * p.width + column) * p.channels;
    return p.channels == 3 ? (77 * int32_t(at[0]) + 150 * int32_t(at[1]) + 29 * int32_t(at[2]) + 128) >> 8 : int32_t(at[0]);
}

DEVICE uint16_t cell_grey(const QualityParams& p, const Region& region, uint32_t column, uint32_t row) {
    const int32_t left = region.x + int32_t(column) * region.cell_px, top = region.y + int32_t(row) * region.cell_px;
    const int32_t samples = min(region.cell_px, MAX_SAMPLES);
    int32_t sum = 0;
    for (int32_t j = 0; j < samples; j++) {
        for (int32_t i = 0; i < samples; i++) {
            sum += grey(p, left + (2 * i + 1) * region.cell_px / (2 * samples), top + (2 * j + 1) * region.cell_px / (2 * samples));
        }
    }
    return uint16_t((GREY * sum + samples * samples / 2) / (samples * samples));
}

// Makes valid, mask and greys; a thread a row for the bits.
DEVICE void see(const QualityParams& p, Grid& g, const Region& region, uint32_t k) {
    const uint8_t* const bits = p.mask_bits + size_t(k) * p.height * ((p.width + 7) / 8);
    const uint32_t row = threadIdx.x;
    if (row < CELLS) {
        uint64_t valid = 0, mask = 0;
        const int32_t y = region.y + int32_t(row) * region.cell_px + region.cell_px / 2;
        for (uint32_t column = 0; column < CELLS && y >= 0 && y < int32_t(p.height); column++) {
            const int32_t x = region.x + int32_t(column) * region.cell_px + region.cell_px / 2;
            if (x < 0 || x >= int32_t(p.width)) continue;
            valid |= uint64_t(1) << column;
            const uint8_t byte = bits[size_t(y) * ((p.width + 7) / 8) + uint32_t(x) / 8];
            mask |= uint64_t(byte >> (x % 8) & 1) << column;
        }
        g.valid[row] = valid;
        g.mask[row] = mask;
    }
    __syncthreads();
    for (uint32_t cell = threadIdx.x; cell < CELLS * CELLS; cell += blockDim.x) {
        const uint32_t y = cell / CELLS, x = cell % CELLS;
        g.greys[y][x] = has(g.valid[y], x) ? cell_grey(p, region, x, y) : 0;
    }
    __syncthreads();
}

// All cells within so many of one that is set, along both axes, in this thread's row.
DEVICE uint64_t dilated(const uint64_t* bits, uint32_t row, uint32_t by) {
    uint64_t all = 0;
    for (uint32_t y = row < by ? 0 : row - by; y <= min(row + by, CELLS - 1); y++) {
        for (uint32_t k = 0; k <= by; k++) all |= bits[y] << k | bits[y] >> k;
    }
    return all;
}

DEVICE void sums_of(Grid& g, uint32_t which, uint32_t row, uint64_t bits) {
    uint32_t number = 0, sum = 0;
    uint64_t squares = 0;
    for (uint32_t column = 0; column < CELLS; column++) {
        if (!has(bits, column)) continue;
        const uint32_t value = g.greys[row][column];
        number++;
        sum += value;
        squares += uint64_t(value) * value;
    }
    g.numbers[which][row] = number;
    g.sums[which][row] = sum;
    g.squares[which][row] = squares;
}

struct Sums {
    uint32_t n, sum;
    uint64_t squares;
    DEVICE float mean() const { return float(sum) / float(n) / float(GREY); }
    DEVICE float variance() const {
        return float(n * squares - uint64_t(sum) * sum) / float(uint64_t(n) * n) / float(GREY * GREY);
    }
};

DEVICE Sums total(const Grid& g, uint32_t which) {
    Sums all = {0, 0, 0};
    for (uint32_t row = 0; row < CELLS; row++) {
        all.n += g.numbers[which][row];
        all.sum += g.sums[which][row];
        all.squares += g.squares[which][row];
    }
    return all;
}

// Edges along the outline in this thread's row.
DEVICE void edges(Grid& g, uint32_t row) {
    uint64_t beside = 0;
    if (row > 0) beside |= g.valid[row - 1] & ~g.mask[row - 1];
    if (row + 1 < CELLS) beside |= g.valid[row + 1] & ~g.mask[row + 1];
    const uint64_t outside = g.valid[row] & ~g.mask[row];
    const uint64_t outline = g.mask[row] & (outside << 1 | outside >> 1 | beside);
    uint32_t sharpness = 0, continuous = 0;
    for (uint32_t column = 0; column < CELLS; column++) {
        if (!has(outline, column)) continue;
        int32_t sums[2] = {0, 0}, numbers[2] = {0, 0};
        for (uint32_t y = row < REACH ? 0 : row - REACH; y <= min(row + REACH, CELLS - 1); y++) {
            for (uint32_t x = column < REACH ? 0 : column - REACH; x <= min(column + REACH, CELLS - 1); x++) {
                if (!has(g.valid[y], x)) continue;
                const uint32_t side = has(g.mask[y], x) ? 1 : 0;
                sums[side] += g.greys[y][x];
                numbers[side]++;
            }
        }
        const float out = float(sums[0]) / float(numbers[0]) / float(GREY);
        const float in = float(sums[1]) / float(numbers[1]) / float(GREY);
        const float step = g.difference < 0.0f ? sub(in, out) : sub(out, in);
        if (step > 0.0f) {
            sharpness += uint32_t(mul(step / add(step, HALF_SHARP), PARTS));
            continuous += step >= LEAST_STEP ? 1 : 0;
        }
    }
    g.outline[row] = popcount(outline);
    g.sharpness[row] = sharpness;
    g.continuous[row] = continuous;
}

// Cells of this thread's row that were in the last mask.
DEVICE void common_cells(const QualityParams& p, Grid& g, const Region& region, const int32_t* memory, uint32_t row) {
    const float* const m = p.motion;
    const float y = float(region.y + int32_t(row) * region.cell_px + region.cell_px / 2), cell = float(memory[4]);
    uint32_t common = 0;
    for (uint32_t column = 0; column < CELLS; column++) {
        if (!has(g.mask[row], column)) continue;
        const float x = float(region.x + int32_t(column) * region.cell_px + region.cell_px / 2);
        const float before_x = add(add(mul(m[0], x), mul(m[1], y)), m[2]), before_y = add(add(mul(m[3], x), mul(m[4], y)), m[5]);
        const float at_x = floorf(sub(before_x, float(memory[2])) / cell), at_y = floorf(sub(before_y, float(memory[3])) / cell);
        if (!(at_x >= 0.0f && at_x < float(CELLS) && at_y >= 0.0f && at_y < float(CELLS))) continue;
        const uint32_t c = uint32_t(at_x);
        common += uint32_t(memory[BITS_AT + 2 * uint32_t(at_y) + c / 32]) >> (c % 32) & 1;
    }
    g.common[row] = common;
}

// The largest connected part, into `best`.
DEVICE void largest_part(Grid& g) {
    const uint32_t row = threadIdx.x;
    if (row < CELLS) {
        g.rest[row] = g.mask[row];
        g.best[row] = 0;
    }
    uint32_t best_count = 0;
    for (uint32_t i = 0; i < MAX_PARTS; i++) {
        __syncthreads();
        uint32_t first = 0;
        while (first < CELLS && g.rest[first] == 0) first++;
        if (first == CELLS) break;
        if (row < CELLS) g.part[row] = row == first ? g.rest[row] & (~g.rest[row] + 1) : 0;
        for (;;) {
            __syncthreads();
            if (threadIdx.x == 0) g.changed = 0;
            __syncthreads();
            if (row < CELLS) {
                const uint64_t here = g.part[row];
                const uint64_t above = row > 0 ? g.part[row - 1] : 0, below = row + 1 < CELLS ? g.part[row + 1] : 0;
                g.grown[row] = (here | here << 1 | here >> 1 | above | below) & g.rest[row];
                if (g.grown[row] != here) g.changed = 1;
            }
            __syncthreads();
            if (g.changed == 0) break;
            if (row < CELLS) g.part[row] = g.grown[row];
        }
        uint32_t cells = 0;
        for (uint32_t y = 0; y < CELLS; y++) cells += popcount(g.part[y]);
        __syncthreads();
        if (row < CELLS) {
            if (cells > best_count) g.best[row] = g.part[row];
            g.rest[row] &= ~g.part[row];
        }
        best_count = max(best_count, cells);
    }
    __syncthreads();
}

// Columns and rows that bits cover, ends exclusive.
DEVICE void ends_of(const uint64_t* bits, int32_t* ends) {
    uint64_t columns = 0;
    ends[1] = 0;
    ends[3] = 1;
    for (uint32_t y = 0; y < CELLS; y++) {
        if (bits[y] != 0 && columns == 0) ends[1] = int32_t(y);
        if (bits[y] != 0) ends[3] = int32_t(y) + 1;
        columns |= bits[y];
    }
    ends[0] = lowest(columns);
    ends[2] = highest(columns) + 1;
}

// Box around the largest part. Where it ends in the cell in which the mask's own box does, so does its box.
DEVICE void core(const Grid& g, const Region& region, const int32_t* box, int32_t* core) {
    int32_t ends[4];
    ends_of(g.best, ends);
    for (int i = 0; i < 4; i++) {
        const int32_t origin = i % 2 == 0 ? region.x : region.y;
        const int32_t whole = i < 2 ? (box[i] - origin) / region.cell_px : (box[i] - 1 - origin) / region.cell_px + 1;
        core[i] = ends[i] == whole ? box[i] : origin + ends[i] * region.cell_px;
    }
}

DEVICE float likeness(const int32_t* a, const int32_t* b) {
    int64_t n = 0, sum_a = 0, sum_b = 0, aa = 0, bb = 0, ab = 0;
    for (uint32_t i = 0; i < BLOCKS * BLOCKS; i++) {
        if (a[i] < 0 || b[i] < 0) continue;
        const int64_t x = a[i], y = b[i];
        n++;
        sum_a += x;
        sum_b += y;
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    const float spread_a = float(n * aa - sum_a * sum_a), spread_b = float(n * bb - sum_b * sum_b);
    if (spread_a <= 0.0f || spread_b <= 0.0f) return 0.0f;
    return fminf(fmaxf(float(n * ab - sum_a * sum_b) / mul(sqrtf(spread_a), sqrtf(spread_b)), 0.0f), 1.0f);
}

DEVICE bool region_of(const int32_t* box, Region& region) {
    for (int i = 0; i < 4; i++) {
        if (box[i] < 0 || box[i] > FARTHEST_PX) return false;
    }
    if (box[0] >= box[2] || box[1] >= box[3]) return false;
    const int32_t width = box[2] - box[0], height = box[3] - box[1];
    region.cell_px = (max(width, height) + OBJECT_CELLS - 1) / OBJECT_CELLS;
    const int32_t half = int32_t(CELLS / 2) * region.cell_px;
    region.x = box[0] + width / 2 - half;
    region.y = box[1] + height / 2 - half;
    return true;
}

// Judges object `k`, whose memory is `known`, renewed into `next` (of which the first two values are set).
DEVICE void judge(const QualityParams& p, Grid& g, uint32_t k, bool is_new, int32_t* next) {
    const int32_t* const box = p.box_xyxy + size_t(k) * 4;
    float* const scores = p.scores + size_t(k) * SCORES;
    int32_t* const core_xyxy = p.core_xyxy + size_t(k) * 4;
    const uint32_t row = threadIdx.x;
    Region region;
    const bool is_there = region_of(box, region);
    if (is_there) see(p, g, region, k);
    uint32_t cells = 0;
    for (uint32_t y = 0; is_there && y < CELLS; y++) cells += popcount(g.mask[y]);
    if (cells == 0) {
        if (row < SCORES) scores[row] = 0.0f;
        if (row < 4) core_xyxy[row] = is_there ? box[row] : 0;
        return;
    }
    if (row < CELLS) {
        const uint64_t near = dilated(g.mask, row, 1), far = dilated(g.mask, row, RING_CELLS);
        sums_of(g, 0, row, g.mask[row]);
        sums_of(g, 1, row, far & ~near & g.valid[row]);
    }
    __syncthreads();
    float contrast = 0.0f;
    if (threadIdx.x == 0) {
        const Sums inside = total(g, 0), ring = total(g, 1);
        g.difference = ring.n > 0 ? sub(ring.mean(), inside.mean()) : 0.0f;
        if (ring.n > 0) {
            const float noise = sqrtf(fmaxf(add(inside.variance(), ring.variance()), LEAST_VARIANCE));
            const float ratio = fabsf(g.difference) / noise;
            contrast = ratio / add(ratio, 1.0f);
        }
    }
    __syncthreads();
    if (row < CELLS) {
        edges(g, row);
        if (!is_new) common_cells(p, g, region, next, row);
    }
    for (uint32_t block = threadIdx.x; block < BLOCKS * BLOCKS; block += blockDim.x) {
        int32_t sum = 0, n = 0;
        for (uint32_t i = 0; i < SIDE * SIDE; i++) {
            const uint32_t y = block / BLOCKS * SIDE + i / SIDE, x = block % BLOCKS * SIDE + i % SIDE;
            if (!has(g.valid[y], x)) continue;
            sum += g.greys[y][x];
            n++;
        }
        g.blocks[block] = n > 0 ? sum / n : -1;
    }
    largest_part(g);
    if (threadIdx.x != 0) return;

    core(g, region, box, core_xyxy);
    uint32_t outline = 0, sharpness = 0, continuous = 0, common = 0;
    for (uint32_t y = 0; y < CELLS; y++) {
        outline += g.outline[y];
        sharpness += g.sharpness[y];
        continuous += g.continuous[y];
        if (!is_new) common += g.common[y];
    }
    scores[0] = outline > 0 ? float(sharpness) / PARTS / float(outline) : 0.0f;
    scores[1] = contrast;
    scores[2] = outline > 0 ? float(continuous) / float(outline) : 0.0f;
    scores[3] = scores[4] = 1.0f;
    if (!is_new) {
        const float scale = float(next[4]) / float(region.cell_px);
        const float both = sub(add(float(cells), mul(float(uint32_t(next[5])), mul(scale, scale))), float(common));
        scores[3] = both > 0.0f ? fminf(float(common) / both, 1.0f) : 0.0f;
        scores[4] = likeness(g.blocks, next + BLOCKS_AT);
    }
    float sum = 0.0f, weights = 0.0f;
    for (uint32_t i = 0; i < (is_new ? 3 : SCORES - 1); i++) {
        sum = add(sum, mul(p.config.weights[i], scores[i]));
        weights = add(weights, p.config.weights[i]);
    }
    const float mean = weights > 0.0f ? sum / weights : 0.0f;
    scores[5] = mean;
    for (uint32_t i = 0; i < BLOCKS * BLOCKS; i++) {
        int32_t& known = next[BLOCKS_AT + i];
        if (is_new) {
            known = g.blocks[i];
        } else if (mean >= p.config.least) {
            known = known < 0 || g.blocks[i] < 0 ? g.blocks[i] : known + (g.blocks[i] - known) / 4;
        }
    }
    next[1] = next[1] < 0x7fffffff ? next[1] + 1 : next[1];
    next[2] = region.x;
    next[3] = region.y;
    next[4] = region.cell_px;
    next[5] = int32_t(cells);
    for (uint32_t y = 0; y < CELLS; y++) {
        next[BITS_AT + 2 * y] = int32_t(uint32_t(g.mask[y]));
        next[BITS_AT + 2 * y + 1] = int32_t(uint32_t(g.mask[y] >> 32));
    }
}

KERNEL_BOUNDED(quality, QualityParams, 256) {
    SHARED(Grid, grid, );
    const uint32_t count = *p.count < 0 ? 0 : min(uint32_t(*p.count), p.most), slot = blockIdx.x;
    if (slot == p.rows) {
        for (uint32_t k = threadIdx.x; k < p.most; k += blockDim.x) {
            const bool is_judged = k < count && p.slots[k] >= 0 && uint32_t(p.slots[k]) < p.rows;
            for (uint32_t i = 0; i < SCORES && !is_judged; i++) p.scores[size_t(k) * SCORES + i] = 0.0f;
            for (uint32_t i = 0; i < 4 && !is_judged; i++) p.core_xyxy[size_t(k) * 4 + i] = 0;
        }
        return;
    }
    const int32_t* const known = p.memory + size_t(slot) * MEMORY_LEN;
    int32_t* const next = p.next + size_t(slot) * MEMORY_LEN;
    for (uint32_t i = threadIdx.x; i < MEMORY_LEN; i += blockDim.x) next[i] = known[i];
    __syncthreads();
    // A row belongs to one object; should several name it, they take turns, as on the host.
    for (uint32_t k = 0; k < count; k++) {
        if (p.slots[k] != int32_t(slot)) continue;
        const int32_t key = p.keys[k];
        const bool is_other = key < 0 || next[0] != key;
        __syncthreads();
        for (uint32_t i = threadIdx.x; is_other && i < MEMORY_LEN; i += blockDim.x) next[i] = 0;
        __syncthreads();
        if (is_other && threadIdx.x == 0) next[0] = key < 0 ? int32_t(0u - uint32_t(key)) : key;
        const bool is_new = next[1] == 0;
        judge(p, grid, k, is_new, next);
        __syncthreads();
    }
}
