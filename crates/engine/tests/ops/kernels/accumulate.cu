// The CUDA form of the test suite's own op.
#include "abi.cuh"

struct AccumulateParams {
    Operand x, sum, runs, next_sum, next_runs, scratch;
};

KERNEL(accumulate, AccumulateParams) {
    for (uint32_t i = threadIdx.x; i < p.x.cols; i += blockDim.x) {
        store(p.scratch, 0, i, load(p.x, 0, i));
        store(p.next_sum, 0, i, load(p.scratch, 0, i) + load(p.sum, 0, i));
    }
    if (threadIdx.x == 0) *element<int32_t>(p.next_runs, 0, 0) = *element<int32_t>(p.runs, 0, 0) + 1;
}
