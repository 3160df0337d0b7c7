// Rows of a table by index.
#include "access.cuh"

struct GatherParams {
    Operand table, indices, out;  // `[entries, width]`, i32 `[.., ..]` without gaps, `[indices, width]`
    Rows rows;                    // of the result
    uint32_t width;               // elements a thread: 4 where rows start at multiples of 4 elements and have as many, or 1
    uint32_t reserved;
};

KERNEL(gather_rows, GatherParams) {
    const uint32_t packs = p.out.cols / p.width;
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x, row = index / packs;
    if (row >= valid_rows(p.rows)) return;
    const uint32_t column = index % packs * p.width;
    const int32_t wanted = static_cast<const int32_t*>(p.indices.data)[row];
    const uint32_t from = wanted < 0 ? 0 : uint32_t(wanted) < p.table.rows ? uint32_t(wanted) : p.table.rows - 1;
    const size_t from_at = size_t(from) * p.table.pitch + column, to_at = size_t(row) * p.out.pitch + column;
    if (p.width == 4) {
        copy_at<4>(p.out, to_at, p.table, from_at);
    } else {
        copy_at<1>(p.out, to_at, p.table, from_at);
    }
}
