// One family of matrix products for every convolution, linear layer and matmul: out[M, N] = epilogue(A[M, K] * B).
//
// A is a matrix, or a feature map whose windows are the rows (implicit GEMM: the rows of A are never written down).
// B is [N, K] with K contiguous (weights, transposed operands) or [K, N]. A block computes a tile of BM x BN; slices
// of BK of both operands come to shared memory by asynchronous copies, STAGES of them under way at once. f16 operands
// are multiplied by tensor cores, f32 ones by FMAs; sums are f32 in both.
//
// With few tiles K is split over blocks, which leave partial sums in `partial`; the last of a tile's blocks adds them in a fixed
// order and finishes.
#pragma once
#include "epilogue.cuh"
#include "gemm_sources.cuh"
#include "gemm_sums.cuh"

struct GemmParams {
    // `a`: [entries * m, K] or a map; `b`: [N, K] or [entries * K, N].
    Operand a, b, out;
    Epilogue epilogue;
    // [splits, m, n rounded up to 8] when `splits` > 1, and for each tile how many of its blocks have left their sums: 0 before the
    // kernel and after it.
    float* partial;
    uint32_t* arrivals;
    // Valid rows of the product, over all entries.
    Rows rows;
    // Of the layer norm of finished rows, in kernels that have one.
    const float *gamma, *beta;
    // Of one entry; `n` counts the columns of `b` that are computed.
    uint32_t m, n, k;
    // Blocks along z are entries of a batch, or parts of K.
    uint32_t entries, splits;
    // Slices of BK that one part of K has at most.
    uint32_t slices_per_split;
    // Elements that are loaded from a and b, see `gemm_sources.cuh`, and stored to out at once.
    uint32_t a_width, b_width, out_width;
    // For a transposed convolution, columns of each of the four taps (`n` / 4, a multiple of 8), else 0; `window.in_w` is
    // then the width of the map.
    uint32_t tap_cols;
    // Whether `b`, [N, K], is a constant that is loaded in whole chunks: its first slices need not wait for the previous kernel.
    uint32_t b_constant;
    Window window;
    float norm_epsilon;
    uint32_t norm_activation;
    uint32_t unused;
};
static_assert(sizeof(GemmParams) == 280, "as in Rust");

// Elements from one row of partial sums to the next.
DEVICE uint32_t partial_pitch(const GemmParams& p) { return (p.n + 7) / 8 * 8; }

// Where in `out` column `n` of a row of the product goes.
struct Place {
    uint32_t row, col;
};
DEVICE Place place_of(const GemmParams& p, uint32_t row, uint32_t n) {
    if (!p.tap_cols) return {row, n};
    // Row r of the product is pixel (y, x) of the map; tap (i, j) goes to pixel (2 y + i, 2 x + j).
    const uint32_t tap = n / p.tap_cols, w = p.window.in_w;
    const uint32_t line = row / w, x = row - line * w;
    return {(line * 2 + tap / 2) * (w * 2) + x * 2 + tap % 2, n - tap * p.tap_cols};
}

// Finishes eight neighbouring sums of a row of the product, from column `n`, a multiple of 8.
template <bool HALF>
DEVICE void finish(const GemmParams& p, uint32_t row, uint32_t n, float (&sums)[8]) {
    const Place to = place_of(p, row, n);
    if (to.col >= p.out.cols) return;
    const uint32_t left = p.out.cols - to.col;
    finish<HALF>(p.epilogue, p.out, to.row, to.col, sums, left < 8 ? left : 8, p.out_width == 8);
}

// Eight neighbouring partial sums of part `split`.
DEVICE float* partial_sums(const GemmParams& p, uint32_t split, uint32_t row, uint32_t n) {
    return p.partial + (size_t(split) * p.m + row) * partial_pitch(p) + n;
}

// Whether this block is the last of its tile's to come here. What the others wrote before can then be read, from the L2 cache.
DEVICE bool is_last_of_tile(const GemmParams& p) {
    SHARED(uint32_t, last, );
    // This thread's sums are seen by whoever sees the count.
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t* const arrived = p.arrivals + blockIdx.y * gridDim.x + blockIdx.x;
        last = atomicAdd(arrived, 1) + 1 == p.splits;
        if (last) *arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

// Finishes sums and stores the layer norm of their row, whose N columns N / 8 lanes of a warp have between them. All lanes of the
// warp are here, also those whose row is not `inside`.
template <int N>
DEVICE void finish_normed(const GemmParams& p, uint32_t row, uint32_t n, bool inside, float (&v)[8]) {
    const Place to = place_of(p, row, n);
    const bool wide = p.out_width == 8;
    if (inside) transform<true>(p.epilogue, residual_row(p.epilogue, p.out, to.row), to.col, v, 8, wide);
    auto mean_over_row = [](float sum) {
#pragma unroll
        for (int lanes = N / 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
        return sum / float(N);
    };
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += v[i];
    const float mean = mean_over_row(sum);
#pragma unroll
    for (int i = 0; i < 8; i++) squares += (v[i] - mean) * (v[i] - mean);
    const float scale = 1.0f / sqrtf(mean_over_row(squares) + p.norm_epsilon);
    if (!inside) return;
    float gamma[8], beta[8];
    load_floats<8>(gamma, p.gamma + to.col);
    load_floats<8>(beta, p.beta + to.col);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = beta[i] + (v[i] - mean) * scale * gamma[i];
    activate<true>(p.norm_activation, 0.0f, 0.0f, v);
    store_result(p.out, to.row, to.col, v, 8, wide);
}

// A tile's sizes. SUB_M and SUB_N are a warp's part for f16, a thread's for f32. STAGES: 0 for as many as the type has.
template <class ELEMENT, int BM_, int BN_, int SUB_M, int SUB_N, int STAGES = 0>
struct Tile {
    using T = ELEMENT;
    static constexpr bool kHalf = SameType<T, __half>::kValue;
    static constexpr int BM = BM_, BN = BN_, kSubM = SUB_M, kSubN = SUB_N, BK = kHalf ? 32 : 16;
    static constexpr int kStages = STAGES ? STAGES : kHalf ? 4 : 3;
    static constexpr int kThreads = kHalf ? BM / SUB_M * (BN / SUB_N) * 32 : BM / SUB_M * (BN / SUB_N);
};

template <class TILE, bool B_ROWS_ARE_K, bool HALF>
struct SumsOf {
    using Type = TensorSums<TILE::BM, TILE::BN, TILE::kSubM, TILE::kSubN, TILE::kThreads, B_ROWS_ARE_K>;
};
template <class TILE, bool B_ROWS_ARE_K>
struct SumsOf<TILE, B_ROWS_ARE_K, false> {
    using Type = FmaSums<TILE::BM, TILE::BN, TILE::kSubM, TILE::kSubN, TILE::kThreads, B_ROWS_ARE_K>;
};

// Where in shared memory the slices of a stage lie: those of A, then those of B.
template <class TILE, class A, class B>
struct Stages {
    using LayoutA = typename A::Layout;
    using LayoutB = typename B::Layout;
    static constexpr int kCount = TILE::kStages, kElements = LayoutA::kElements + LayoutB::kElements;
    typename TILE::T* shared;

    DEVICE typename TILE::T* a(uint32_t slice) const { return shared + slice % kCount * kElements; }
    DEVICE typename TILE::T* b(uint32_t slice) const { return a(slice) + LayoutA::kElements; }
};

// The block's main loop: `a` and `b` bring slices first..end, `sums` adds their products. The first `b_ahead` slices of `b`, at most
// a slice for each stage but one, are on their way already.
template <class TILE, class A, class B, class SUMS>
DEVICE void accumulate(A& a, B& b, SUMS& sums, uint32_t first, uint32_t end, const Stages<TILE, A, B>& stages,
                       uint32_t b_ahead) {
    constexpr int kStages = TILE::kStages;
    const uint32_t slices = end - first;
    // From the first slice on its way to the last one that is added, which is kStages - 1 later.
#pragma unroll 1
    for (uint32_t next = 0; next < slices + kStages - 1; next++) {
        if (next >= kStages - 1) {
            copy_wait<kStages - 2>();
            // All copies of the oldest slice are here, and all threads have done with the stage that is filled now.
            __syncthreads();
        }
        if (next < slices) {
            a.load_slice(stages.a(next), first + next);
            if (next >= b_ahead) b.load_slice(stages.b(next), first + next);
            a.advance();
        }
        // An empty group too, so that the number of groups says which slice has landed.
        copy_commit();
        if (next >= kStages - 1) {
            const uint32_t oldest = next - (kStages - 1);
            sums.template add<TILE::BK>(stages.a(oldest), A::Layout::kPitch, stages.b(oldest), B::Layout::kPitch);
        }
    }
    copy_wait<0>();
    __syncthreads();
}

// Makes what brings a block's part of A or of B.
template <class T, class TILE, bool WINDOWS>
struct SourceOfA {
    using Type = WindowRows<T, TILE::BM, TILE::BK, TILE::kThreads>;
    DEVICE static Type make(const GemmParams& p, uint32_t first_row, uint32_t end_row, uint32_t first_slice) {
        return Type(p.a, p.window, first_row, end_row, p.a_width, first_slice);
    }
};
template <class T, class TILE>
struct SourceOfA<T, TILE, false> {
    using Type = MatrixRows<T, TILE::BM, TILE::BK, TILE::kThreads>;
    DEVICE static Type make(const GemmParams& p, uint32_t first_row, uint32_t end_row, uint32_t) {
        return Type(p.a, first_row, end_row, p.k, p.a_width);
    }
};
template <class T, class TILE, bool B_ROWS_ARE_K>
struct SourceOfB {
    using Type = MatrixColumns<T, TILE::BN, TILE::BK, TILE::kThreads>;
    DEVICE static Type make(const GemmParams& p, uint32_t entry, uint32_t first_col) {
        return Type{p.b, entry * p.k, first_col, p.n, p.k, p.b_width};
    }
};
template <class T, class TILE>
struct SourceOfB<T, TILE, false> {
    using Type = MatrixRows<T, TILE::BN, TILE::BK, TILE::kThreads>;
    DEVICE static Type make(const GemmParams& p, uint32_t entry, uint32_t first_col) {
        return Type(p.b, entry * p.n + first_col, entry * p.n + p.n, p.k, p.b_width);
    }
};

// A product whose rows of A are windows or matrix rows, and whose B is [N, K], or [K, N] with B_ROWS_ARE_K. With NORM a tile is as
// wide as the rows of the result.
template <class TILE, bool WINDOWS, bool B_ROWS_ARE_K, bool NORM = false>
DEVICE void gemm(const GemmParams& p) {
    using T = typename TILE::T;
    using A = SourceOfA<T, TILE, WINDOWS>;
    using B = SourceOfB<T, TILE, B_ROWS_ARE_K>;
    constexpr int BM = TILE::BM, BN = TILE::BN, BK = TILE::BK, kThreads = TILE::kThreads;
    const uint32_t entry = p.entries > 1 ? blockIdx.z : 0, split = p.entries > 1 ? 0 : blockIdx.z;
    const uint32_t above = entry * p.m;
    const uint32_t first_row = above + blockIdx.x * BM, first_col = blockIdx.y * BN;
    const uint32_t slices = (p.k + BK - 1) / BK, first = split * p.slices_per_split;
    const uint32_t end = first + p.slices_per_split < slices ? first + p.slices_per_split : slices;
    DYNAMIC_SHARED(T, shared);
    using Memory = Stages<TILE, typename A::Type, typename B::Type>;
    const Memory stages{shared};
    auto b = B::make(p, entry, first_col);
    uint32_t b_ahead = 0;
    if (!B_ROWS_ARE_K && p.b_constant) {
        auto weights = b;
        weights.width = B::Type::Layout::kChunk;
        b_ahead = end - first < TILE::kStages - 1 ? end - first : TILE::kStages - 1;
        for (uint32_t slice = 0; slice < b_ahead; slice++) weights.load_slice(stages.b(slice), first + slice);
    }
    wait_for_previous();
    const uint32_t valid = valid_rows(p.rows);
    const uint32_t end_row = valid < above + p.m ? valid : above + p.m;
    if (first_row >= end_row) {
        copy_wait<0>();
        return;
    }
    auto a = A::make(p, first_row, end_row, first);
    typename SumsOf<TILE, B_ROWS_ARE_K, TILE::kHalf>::Type sums;
    accumulate<TILE>(a, b, sums, first, end, stages, b_ahead);
    // The sums change hands where the slices were, so that each thread stores neighbours of a row.
    constexpr int kPitch = BN + 4;
    static_assert(BM * kPitch * 4 <= Memory::kCount * Memory::kElements * int(sizeof(T)), "room for the sums");
    float* staging = reinterpret_cast<float*>(shared);
    sums.stage(staging, kPitch);
    __syncthreads();
    static_assert(BM * BN / 8 % kThreads == 0, "as much for each thread");
    // `f(row, column, eight sums)` for each part of this thread.
    auto each_part = [&](auto f) {
#pragma unroll 1
        for (uint32_t at = threadIdx.x; at < BM * BN / 8; at += kThreads) {
            const uint32_t r = at / (BN / 8), c = at % (BN / 8) * 8;
            const float4* own = reinterpret_cast<const float4*>(staging + r * kPitch + c);
            float v[8] = {own[0].x, own[0].y, own[0].z, own[0].w, own[1].x, own[1].y, own[1].z, own[1].w};
            f(first_row + r, first_col + c, v);
        }
    };
    if constexpr (NORM) {
        each_part([&](uint32_t row, uint32_t n, float (&v)[8]) { finish_normed<BN>(p, row, n, row < end_row, v); });
        return;
    }
    auto exists = [&](uint32_t row, uint32_t n) { return row < end_row && n < p.n; };
    if (p.splits > 1) {
        each_part([&](uint32_t row, uint32_t n, float (&v)[8]) {
            if (exists(row, n)) store_floats<8>(partial_sums(p, split, row, n), v);
        });
        if (!is_last_of_tile(p)) return;
    }
    each_part([&](uint32_t row, uint32_t n, float (&v)[8]) {
        if (!exists(row, n)) return;
        if (p.splits > 1) {
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = 0.0f;
            for (uint32_t part = 0; part < p.splits; part++) {
                float more[8];
                load_latest(more, partial_sums(p, part, row, n));
#pragma unroll
                for (int i = 0; i < 8; i++) v[i] += more[i];
            }
        }
        finish<TILE::kHalf>(p, row, n, v);
    });
}

// The forms: a convolution, a matrix by the rows of another, without and with a norm, or by its columns.
template <class TILE>
DEVICE void convolve(const GemmParams& p) {
    gemm<TILE, true, false>(p);
}
template <class TILE>
DEVICE void multiply_rows(const GemmParams& p) {
    gemm<TILE, false, false>(p);
}
template <class TILE>
DEVICE void multiply_rows_and_norm(const GemmParams& p) {
    gemm<TILE, false, false, true>(p);
}
template <class TILE>
DEVICE void multiply_columns(const GemmParams& p) {
    gemm<TILE, false, true>(p);
}
