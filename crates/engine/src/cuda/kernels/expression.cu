// A few elementwise functions of a few arguments, each met with strides of its own: small tensors, for which a launch costs
// more than the arithmetic.
#include "access.cuh"
#include "functions.cuh"

constexpr uint32_t MAX_RANK = 6, MAX_LEAVES = 8, MAX_STEPS = 12;

// A function of two values so far: leaves first, then steps.
struct Step {
    uint32_t op;  // `UnaryOp`, or BINARY plus `BinaryOp`, in the order of their declaration
    uint32_t a, b;
    float alpha, beta;
};

struct ExpressionParams {
    Operand leaves[MAX_LEAVES];
    Operand out;
    Rows elements;
    uint32_t rank, leaf_count, step_count, reserved;
    uint32_t dims[MAX_RANK];
    uint32_t out_strides[MAX_RANK];
    uint32_t strides[MAX_LEAVES][MAX_RANK];
    Step steps[MAX_STEPS];
};

KERNEL(expression, ExpressionParams) {
    const uint32_t element = blockIdx.x * blockDim.x + threadIdx.x;
    if (element >= valid_rows(p.elements)) return;
    size_t out_at = 0, at[MAX_LEAVES];
#pragma unroll
    for (uint32_t leaf = 0; leaf < MAX_LEAVES; leaf++) at[leaf] = 0;
    uint32_t index = element;
    for (uint32_t d = p.rank; d-- > 0;) {
        const uint32_t i = d == 0 ? index : index % p.dims[d];
        index /= p.dims[d];
        out_at += size_t(i) * p.out_strides[d];
#pragma unroll
        for (uint32_t leaf = 0; leaf < MAX_LEAVES; leaf++) {
            if (leaf < p.leaf_count) at[leaf] += size_t(i) * p.strides[leaf][d];
        }
    }
    float values[MAX_LEAVES + MAX_STEPS];
#pragma unroll
    for (uint32_t leaf = 0; leaf < MAX_LEAVES; leaf++) {
        if (leaf < p.leaf_count) values[leaf] = load_at(p.leaves[leaf], at[leaf]);
    }
    float result = 0.0f;
    for (uint32_t s = 0; s < p.step_count; s++) {
        const Step& step = p.steps[s];
        const float a = values[step.a];
        result = step.op < BINARY ? unary(step.op, a, step.alpha, step.beta) : binary(step.op - BINARY, a, values[step.b]);
        values[MAX_LEAVES + s] = result;
    }
    store_at(p.out, out_at, result);
}
