// Who belongs to whom, from a cost matrix whose valid rows and columns are counted on the device.
#include "assignment.cuh"

struct AssignParams {
    Operand cost;                     // `[N, M]` f32
    const int32_t* row_count;
    const int32_t* col_count;
    int32_t* col_of_row;              // `[N]`
    int32_t* row_of_col;              // `[M]`
    float* row_duals;                 // `[N]`
    float* col_duals;                 // `[M]`
    int32_t* matched;
    float* costs;                     // `[N * M]`, or null: in shared memory
    void* room;                       // EXACT_BYTES_PER_COLUMN * max(N, M), or null: in shared memory
    double unmatched_cost;
    uint32_t greedy;
    uint32_t reserved;
};

KERNEL_BOUNDED(assign, AssignParams, 512) {
    DYNAMIC_SHARED(unsigned char, dynamic);
    SHARED(SolverRoom, solver, );
    const uint32_t most_rows = p.cost.rows, most_cols = p.cost.cols, longer = max(most_rows, most_cols);
    const uint32_t rows = uint32_t(min(max(*p.row_count, 0), int32_t(most_rows)));
    const uint32_t cols = uint32_t(min(max(*p.col_count, 0), int32_t(most_cols)));
    for (uint32_t i = threadIdx.x; i < most_rows; i += blockDim.x) {
        p.col_of_row[i] = UNMATCHED;
        p.row_duals[i] = 0.0f;
    }
    for (uint32_t j = threadIdx.x; j < most_cols; j += blockDim.x) {
        p.row_of_col[j] = UNMATCHED;
        p.col_duals[j] = 0.0f;
    }
    __syncthreads();
    const CostMatrix cost = {static_cast<const float*>(p.cost.data), rows, cols, p.cost.pitch};
    uint32_t matched;
    if (p.greedy != 0) {
        matched = solve_greedy(cost, p.unmatched_cost, solver, p.col_of_row);
    } else {
        void* const room = p.room ? p.room : dynamic;
        float* const costs =
            p.costs ? p.costs : reinterpret_cast<float*>(dynamic + (p.room ? 0 : EXACT_BYTES_PER_COLUMN * size_t(longer)));
        matched = solve_exact(cost, p.unmatched_cost, exact_room(costs, room, longer), solver, p.col_of_row, p.row_duals,
                              p.col_duals);
    }
    for (uint32_t i = threadIdx.x; i < rows; i += blockDim.x) {
        const int32_t col = p.col_of_row[i];
        if (col != UNMATCHED) p.row_of_col[col] = int32_t(i);
    }
    if (threadIdx.x == 0) *p.matched = int32_t(matched);
}
