// The k largest of a row with their columns: largest first, of equal ones the lower column, NaN before everything.
#include "access.cuh"
#include "sort.cuh"
#include "warp.cuh"

struct TopKParams {
    Operand x, values, indices;  // `[rows, cols]`, `[rows, k]` twice, the last i32
    Rows rows;
    uint32_t k;
    uint32_t sorted;  // for `top_k_block`: the power of two at or above k
};

// Short rows: a warp a row, its keys in registers, the largest taken out k times.
constexpr int WARP_ITEMS = 4;  // at most 128 columns

KERNEL(top_k_warp, TopKParams) {
    const uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= valid_rows(p.rows)) return;
    const size_t start = size_t(row) * p.x.pitch;
    uint64_t keys[WARP_ITEMS];
#pragma unroll
    for (int i = 0; i < WARP_ITEMS; i++) {
        const uint32_t column = i * 32 + lane;
        keys[i] = column < p.x.cols ? sort_key(load_at(p.x, start + column), column) : 0;
    }
    for (uint32_t place = 0; place < p.k; place++) {
        uint64_t best = 0;
#pragma unroll
        for (int i = 0; i < WARP_ITEMS; i++) best = keys[i] > best ? keys[i] : best;
        best = warp_max(best);
#pragma unroll
        for (int i = 0; i < WARP_ITEMS; i++) keys[i] = keys[i] == best ? 0 : keys[i];
        const uint32_t column = index_of_key(best);
        if (lane == 0) {
            store_at(p.values, size_t(row) * p.values.pitch + place, load_at(p.x, start + column));
            *element<int32_t>(p.indices, row, place) = int32_t(column);
        }
    }
}

// Long rows: a block a row. Two bits at a time, the largest key that k elements reach; if more than k do, by the same means the
// column up to which those that equal it belong. What is selected so is sorted in shared memory.
constexpr uint32_t TRIALS = 3;  // what two bits may add to a key, counted at once
constexpr uint32_t COUNTERS = 34 * TRIALS;
constexpr uint32_t BLOCK_ITEMS = 12;  // keys of a thread in registers: of 1024 threads, 12288 columns; others are read again

// A row in the hands of a block.
struct BlockRow {
    const Operand& x;
    size_t start;
    uint32_t* counts;  // TRIALS counters for each call of `count`, all 0
    uint32_t calls;
    uint32_t keys[BLOCK_ITEMS];

    DEVICE BlockRow(const Operand& x, uint32_t row, uint32_t* counts)
        : x(x), start(size_t(row) * x.pitch), counts(counts), calls(0) {
#pragma unroll
        for (uint32_t i = 0; i < BLOCK_ITEMS; i++) {
            const uint32_t column = i * blockDim.x + threadIdx.x;
            keys[i] = column < x.cols ? key(column) : 0;
        }
    }

    DEVICE uint32_t key(uint32_t column) const { return sort_key(load_at(x, start + column)); }

    // `f(key, column)` for each element of the thread.
    template <class F>
    DEVICE void each(F f) const {
#pragma unroll
        for (uint32_t i = 0; i < BLOCK_ITEMS; i++) {
            const uint32_t column = i * blockDim.x + threadIdx.x;
            if (column < x.cols) f(keys[i], column);
        }
        for (uint32_t column = BLOCK_ITEMS * blockDim.x + threadIdx.x; column < x.cols; column += blockDim.x) {
            f(key(column), column);
        }
    }

    // For each trial, how many elements of the row `test(key, column, trial)` holds for. Called by all threads.
    template <class F>
    DEVICE const uint32_t* count(F test) {
        uint32_t mine[TRIALS] = {};
        each([&](uint32_t key, uint32_t column) {
#pragma unroll
            for (uint32_t i = 0; i < TRIALS; i++) mine[i] += test(key, column, i) ? 1 : 0;
        });
        uint32_t* const own = counts + TRIALS * calls++;
#pragma unroll
        for (uint32_t i = 0; i < TRIALS; i++) {
            mine[i] = warp_sum(mine[i]);
            if (threadIdx.x % 32 == 0) atomicAdd(&own[i], mine[i]);
        }
        __syncthreads();
        return own;
    }
};

KERNEL_BOUNDED(top_k_block, TopKParams, 1024) {
    DYNAMIC_SHARED(uint64_t, selected);
    SHARED(uint32_t, counts, [COUNTERS]);
    SHARED(uint32_t, cursor, );
    const uint32_t row = blockIdx.x, cols = p.x.cols;
    if (row >= valid_rows(p.rows)) return;
    for (uint32_t i = threadIdx.x; i < COUNTERS; i += blockDim.x) counts[i] = 0;
    for (uint32_t i = threadIdx.x; i < p.sorted; i += blockDim.x) selected[i] = 0;
    if (threadIdx.x == 0) cursor = 0;
    __syncthreads();
    BlockRow x(p.x, row, counts);

    uint32_t threshold = 0, reaching = cols;
    for (int shift = 30; shift >= 0 && reaching != p.k; shift -= 2) {
        const uint32_t below = threshold;
        const uint32_t* const n = x.count([=](uint32_t key, uint32_t, uint32_t trial) {
            return key >= (below | (trial + 1) << shift);
        });
        // The highest that enough elements reach.
        for (uint32_t trial = 0; trial < TRIALS && n[trial] >= p.k; trial++) {
            threshold = below | (trial + 1) << shift;
            reaching = n[trial];
        }
    }
    uint32_t end = cols;  // elements equal to the threshold belong before this column
    if (reaching != p.k) {
        const uint32_t above = x.count([=](uint32_t key, uint32_t, uint32_t) { return key > threshold; })[0];
        end = 0;
        for (int shift = (31 - __clz(int(cols))) / 2 * 2; shift >= 0; shift -= 2) {
            const uint32_t before = end;
            const uint32_t* const n = x.count([=](uint32_t key, uint32_t column, uint32_t trial) {
                return key == threshold && column < (before | (trial + 1) << shift);
            });
            for (uint32_t trial = 0; trial < TRIALS && above + n[trial] <= p.k; trial++) end = before | (trial + 1) << shift;
        }
    }
    x.each([&](uint32_t key, uint32_t column) {
        if (key > threshold || (key == threshold && column < end)) {
            selected[atomicAdd(&cursor, 1u)] = uint64_t(key) << 32 | (0xffffffffu - column);
        }
    });
    block_sort_descending(selected, p.sorted);
    for (uint32_t place = threadIdx.x; place < p.k; place += blockDim.x) {
        const uint32_t column = index_of_key(selected[place]);
        store_at(p.values, size_t(row) * p.values.pitch + place, load_at(p.x, x.start + column));
        *element<int32_t>(p.indices, row, place) = int32_t(column);
    }
}
