// The solvers of `assignment/`, each by one block. They take the same decisions as the CPU's: sums in f64, ties by index.
#pragma once
#include "exact.cuh"
#include "least.cuh"

constexpr int32_t UNMATCHED = -1;
constexpr int32_t MAX_DISPLACEMENTS = 64;

// A cost matrix: rows `stride` values apart.
struct CostMatrix {
    const float* values;
    uint32_t rows, cols, stride;

    DEVICE float at(uint32_t row, uint32_t col) const { return values[size_t(row) * stride + col]; }
};

// Working memory of `solve_exact`, of global or shared memory. With l the longer side: `costs` holds all costs, the others l.
struct ExactRoom {
    float* costs;
    double *v, *shortest, *reached;
    int32_t *path, *in_tree, *long_of, *short_of, *waiting;
};

constexpr uint32_t EXACT_BYTES_PER_COLUMN = 3 * 8 + 5 * 4;

DEVICE ExactRoom exact_room(float* costs, void* memory, uint32_t longer) {
    double* const f64s = static_cast<double*>(memory);
    int32_t* const i32s = reinterpret_cast<int32_t*>(f64s + 3 * longer);
    return {costs, f64s, f64s + longer, f64s + 2 * longer, i32s, i32s + longer, i32s + 2 * longer, i32s + 3 * longer,
            i32s + 4 * longer};
}

// Shared memory of the solvers beside their working memory.
struct SolverRoom {
    LeastOfWarps least;
    uint32_t count;
};

// Shortest augmenting paths: see `exact.rs`, whose names these are. The shorter side has the rows. `col_of_row` is the
// caller's, one for each row of `cost`. `row_duals` and `col_duals` may be null. Returns the number of pairs. Called by all
// threads of the block; ends with a barrier.
DEVICE uint32_t solve_exact(const CostMatrix& cost, double unmatched_cost, const ExactRoom& room, SolverRoom& shared,
                            int32_t* col_of_row, float* row_duals, float* col_duals) {
    const bool turned = cost.rows > cost.cols;
    const uint32_t shorter = turned ? cost.cols : cost.rows, longer = turned ? cost.rows : cost.cols;
    uint32_t turn = 0;

    // Costs with forbidden pairs infinite, and the range of the others.
    const uint32_t all = shorter * longer, width = max(cost.cols, 1u);
    const uint32_t step_rows = blockDim.x / width, step_cols = blockDim.x % width;
    // Reads run along the rows of `cost`, BATCH of them under way at once.
    constexpr uint32_t BATCH = 8;
    uint32_t from_row = threadIdx.x / width, from_col = threadIdx.x % width;
    float low = INFINITY, high = -INFINITY;
    for (uint32_t n = threadIdx.x; n < all; n += BATCH * blockDim.x) {
        float c[BATCH];
        uint32_t to[BATCH];
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const bool inside = n + i * blockDim.x < all;
            c[i] = inside ? cost.at(from_row, from_col) : 0.0f;
            to[i] = !inside ? all : turned ? from_col * longer + from_row : from_row * longer + from_col;
            from_row += step_rows;
            from_col += step_cols;
            if (from_col >= width) {
                from_col -= width;
                from_row++;
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            if (to[i] == all) continue;
            const bool known = is_finite(c[i]);
            if (known) {
                low = fminf(low, c[i]);
                high = fmaxf(high, c[i]);
            }
            room.costs[to[i]] = known ? c[i] : INFINITY;
        }
    }
    Least lowest_cost = nothing(), highest_cost = nothing();
    if (low <= high) {
        lowest_cost = {ordered(low), 0};
        highest_cost = {ordered(-double(high)), 0};
    }
    lowest_cost = block_least(lowest_cost, shared.least, turn);
    highest_cost = block_least(highest_cost, shared.least, turn);
    double limit = fmax(unmatched_cost, -2.0 * 3.40282346638528859812e38);
    if (lowest_cost.tag != 0) {
        limit = fmin(limit, 1.0);
    } else {
        const double least = number(lowest_cost.key), most = -number(highest_cost.key);
        const double magnitude = fmax(fabs(least), fabs(most)), margin = magnitude > 0.0 ? magnitude : 1.0;
        limit = fmin(limit, add(add(mul(double(shorter), sub(most, least)), most), margin));
    }
    for (uint32_t j = threadIdx.x; j < longer; j += blockDim.x) {
        room.v[j] = 0.0;
        room.short_of[j] = UNMATCHED;
    }
    for (uint32_t i = threadIdx.x; i < shorter; i += blockDim.x) room.long_of[i] = UNMATCHED;
    for (uint32_t i = threadIdx.x; i < cost.rows; i += blockDim.x) col_of_row[i] = UNMATCHED;
    __syncthreads();

    // Augmenting row reduction. All threads take every decision; a column's price is written by the thread that reads it.
    uint32_t waiting = 0;
    for (uint32_t first = 0; first < shorter; first++) {
        uint32_t row = first;
        for (int32_t displacements = 0;; displacements++) {
            Least best = nothing(), second = nothing();
            for (uint32_t j = threadIdx.x; j < longer; j += blockDim.x) {
                const double c = fmin(double(room.costs[size_t(row) * longer + j]), limit);
                const Least reduced = {ordered(sub(c, room.v[j])), j};
                if (reduced.before(second)) {
                    if (reduced.before(best)) {
                        second = best;
                        best = reduced;
                    } else {
                        second = reduced;
                    }
                }
            }
            block_least_two(best, second, shared.least, turn);
            uint32_t col = best.tag;
            const double gap = second.tag == 0xffffffffu ? INFINITY : sub(number(second.key), number(best.key));
            const double price = room.v[col], lowered = sub(price, gap);
            const bool outbids = lowered < price && lowered > -INFINITY;
            if (room.short_of[col] != UNMATCHED && !outbids) col = second.tag == 0xffffffffu ? 0 : second.tag;
            const int32_t displaced = room.short_of[col];
            const bool waits = displaced != UNMATCHED && (!outbids || displacements == MAX_DISPLACEMENTS);
            __syncthreads();  // all have read
            if (waits) {
                if (threadIdx.x == 0) room.waiting[waiting] = int32_t(row);
                waiting++;
                break;
            }
            if (threadIdx.x == col % blockDim.x) {
                if (outbids) room.v[col] = lowered;
                room.short_of[col] = int32_t(row);
                if (displaced != UNMATCHED) room.long_of[displaced] = UNMATCHED;
                room.long_of[row] = int32_t(col);
            }
            if (displaced == UNMATCHED) break;
            row = uint32_t(displaced);
        }
    }
    __syncthreads();

    // Augmentation: from each row that waits, Dijkstra's search to the nearest free column.
    constexpr uint32_t TAKEN = 0x80000000u;
    for (uint32_t k = 0; k < waiting; k++) {
        const uint32_t start = uint32_t(room.waiting[k]);
        for (uint32_t j = threadIdx.x; j < longer; j += blockDim.x) {
            room.shortest[j] = INFINITY;
            room.in_tree[j] = 0;
        }
        uint32_t row = start, sink;
        double base = 0.0;
        for (;;) {
            Least nearest = nothing();
            for (uint32_t j = threadIdx.x; j < longer; j += blockDim.x) {
                if (room.in_tree[j] != 0) continue;
                const double c = fmin(double(room.costs[size_t(row) * longer + j]), limit);
                const double distance = add(base, sub(c, room.v[j]));
                if (distance < room.shortest[j]) {
                    room.shortest[j] = distance;
                    room.path[j] = int32_t(row);
                }
                // Of equal ones a free column, then the first.
                const uint32_t taken = room.short_of[j] != UNMATCHED ? TAKEN : 0;
                const Least way = {ordered(room.shortest[j]), taken | j};
                if (way.before(nearest)) nearest = way;
            }
            nearest = block_least(nearest, shared.least, turn);
            const double lowest = number(nearest.key);
            const uint32_t col = nearest.tag & ~TAKEN;
            if ((nearest.tag & TAKEN) == 0) {
                sink = col;
                for (uint32_t j = threadIdx.x; j < longer; j += blockDim.x) {
                    if (room.in_tree[j] != 0) room.v[j] = add(room.v[j], sub(room.reached[j], lowest));
                }
                break;
            }
            const uint32_t next = uint32_t(room.short_of[col]);
            const double c = fmin(double(room.costs[size_t(next) * longer + col]), limit);
            base = sub(lowest, sub(c, room.v[col]));
            if (threadIdx.x == col % blockDim.x) {
                room.reached[col] = lowest;
                room.in_tree[col] = 1;
            }
            row = next;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            // Each row on the path moves to the column it reached.
            int32_t col = int32_t(sink);
            for (;;) {
                const int32_t mover = room.path[col];
                room.short_of[col] = mover;
                const int32_t previous = room.long_of[mover];
                room.long_of[mover] = col;
                if (uint32_t(mover) == start) break;
                col = previous;
            }
        }
        __syncthreads();
    }

    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    float* const short_duals = turned ? col_duals : row_duals;
    float* const long_duals = turned ? row_duals : col_duals;
    for (uint32_t i = threadIdx.x; i < shorter; i += blockDim.x) {
        const uint32_t j = uint32_t(room.long_of[i]);
        const double c = room.costs[size_t(i) * longer + j];
        if (c < limit) {
            atomicAdd(&shared.count, 1u);
            col_of_row[turned ? j : i] = int32_t(turned ? i : j);
        }
        if (short_duals) short_duals[i] = float(sub(fmin(c, limit), room.v[j]));
    }
    if (long_duals) {
        for (uint32_t j = threadIdx.x; j < longer; j += blockDim.x) long_duals[j] = float(room.v[j]);
    }
    __syncthreads();
    return shared.count;
}

// Each column its cheapest row, the cheaper pair where two want the same: see `greedy.rs`. `col_of_row` has one for each row.
// Returns the number of pairs. Called by all threads of the block; ends with a barrier.
DEVICE uint32_t solve_greedy(const CostMatrix& cost, double unmatched_cost, SolverRoom& shared, int32_t* col_of_row) {
    uint32_t turn = 0, matched = 0;
    // A row's column is written by the thread that reads it in the search.
    for (uint32_t row = threadIdx.x; row < cost.rows; row += blockDim.x) col_of_row[row] = UNMATCHED;
    __syncthreads();
    for (uint32_t first = 0; first < cost.cols; first++) {
        int32_t col = int32_t(first);
        for (;;) {
            Least best = nothing();
            for (uint32_t row = threadIdx.x; row < cost.rows; row += blockDim.x) {
                const float c = cost.at(row, uint32_t(col));
                if (!(is_finite(c) && double(c) < unmatched_cost)) continue;
                const int32_t holder = col_of_row[row];
                bool would = holder == UNMATCHED;
                if (!would) {
                    const float held = cost.at(row, uint32_t(holder));
                    would = c < held || (c == held && col < holder);
                }
                const Least pair = {ordered(c), row};
                if (would && pair.before(best)) best = pair;
            }
            best = block_least(best, shared.least, turn);
            if (best.tag == 0xffffffffu) break;
            const int32_t displaced = col_of_row[best.tag];
            __syncthreads();  // all have read
            if (threadIdx.x == best.tag % blockDim.x) col_of_row[best.tag] = col;
            if (displaced == UNMATCHED) {
                matched++;
                break;
            }
            col = displaced;
        }
    }
    __syncthreads();
    return matched;
}
