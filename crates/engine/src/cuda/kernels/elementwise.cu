// Elementwise functions with broadcasting, and copies between layouts and types. Results are walked as up to six
// collapsed dimensions; an argument that broadcasts along one has the stride 0 there.
#include "access.cuh"
#include "functions.cuh"

constexpr uint32_t MAX_RANK = 6;

struct ElementwiseParams {
    Operand a, b, out;  // `b` only for functions of two
    Rows elements;      // of the result
    uint32_t op;        // `UnaryOp` or `BinaryOp`, in the order of their declaration
    uint32_t rank;      // at least 1
    uint32_t width;     // elements a thread: 4 where all addresses allow it, or 1
    float alpha, beta;  // of `clamp` and `affine`
    uint32_t dims[MAX_RANK];
    uint32_t a_strides[MAX_RANK], b_strides[MAX_RANK], out_strides[MAX_RANK];
    uint32_t reserved;
};

struct Offsets {
    size_t a, b, out;
};

// Where element `index` of the result and its arguments are.
DEVICE Offsets offsets_of(const ElementwiseParams& p, uint32_t index) {
    Offsets at = {0, 0, 0};
    for (uint32_t d = p.rank; d-- > 0;) {
        const uint32_t i = d == 0 ? index : index % p.dims[d];
        index /= p.dims[d];
        at.a += size_t(i) * p.a_strides[d];
        at.b += size_t(i) * p.b_strides[d];
        at.out += size_t(i) * p.out_strides[d];
    }
    return at;
}

// N neighbours along the last dimension, or one value for all of them.
template <int N>
DEVICE void load_along(const Operand& from, size_t at, uint32_t stride, float (&to)[N]) {
    if (stride == 0) {
        const float value = load_at(from, at);
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = value;
    } else {
        load_at(to, from, at);
    }
}

template <int N>
DEVICE void unary_at(const ElementwiseParams& p, uint32_t index) {
    const Offsets at = offsets_of(p, index);
    float values[N];
    load_along(p.a, at.a, p.a_strides[p.rank - 1], values);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] = unary(p.op, values[i], p.alpha, p.beta);
    store_at(p.out, at.out, values);
}

template <int N>
DEVICE void binary_at(const ElementwiseParams& p, uint32_t index) {
    const Offsets at = offsets_of(p, index);
    float a[N], b[N];
    load_along(p.a, at.a, p.a_strides[p.rank - 1], a);
    load_along(p.b, at.b, p.b_strides[p.rank - 1], b);
#pragma unroll
    for (int i = 0; i < N; i++) a[i] = binary(p.op, a[i], b[i]);
    store_at(p.out, at.out, a);
}

KERNEL(unary_elements, ElementwiseParams) {
    const uint32_t index = (blockIdx.x * blockDim.x + threadIdx.x) * p.width;
    if (index >= valid_rows(p.elements)) return;
    if (p.width == 4) {
        unary_at<4>(p, index);
    } else {
        unary_at<1>(p, index);
    }
}

KERNEL(binary_elements, ElementwiseParams) {
    const uint32_t index = (blockIdx.x * blockDim.x + threadIdx.x) * p.width;
    if (index >= valid_rows(p.elements)) return;
    if (p.width == 4) {
        binary_at<4>(p, index);
    } else {
        binary_at<1>(p, index);
    }
}

// `a` to `out`: slices, parts of concatenations, reshapes of rows with gaps, conversions between f32 and f16.
KERNEL(copy_rows, ElementwiseParams) {
    const uint32_t index = (blockIdx.x * blockDim.x + threadIdx.x) * p.width;
    if (index >= valid_rows(p.elements)) return;
    const Offsets at = offsets_of(p, index);
    if (p.width == 4) {
        copy_at<4>(p.out, at.out, p.a, at.a);
    } else {
        copy_at<1>(p.out, at.out, p.a, at.a);
    }
}
