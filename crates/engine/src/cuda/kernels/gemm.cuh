// One family of matrix products for every convolution, linear layer and matmul: out[M, N] = epilogue(A[M, K] * B).
//
// A is a matrix, or a feature map whose windows are the rows (implicit GEMM: the rows of A are never written down).
// B is [N, K] with K contiguous (weights, transposed operands) or [K, N]. A block computes a tile of BM x BN; slices
// of BK of both operands come to shared memory by asynchronous copies, STAGES of them under way at once. f16 operands
// are multiplied by tensor cores, f32 ones by FMAs; sums are f32 in both.
//
// Order of K for windows: tap by tap (row-major), each with `channels_padded` channels, of which the last are zero in
// the weights. How elements are loaded is decided at lowering, by alignment:
//   - a_width = 16 bytes / element: whole chunks, of which all elements exist or none;
//   - a_width = 4 bytes / element: four-byte pieces of chunks;
//   - a_width = 0: one by one, from any type. For windows `channels_padded` is then `channels`: K is dense.
// Likewise b_width.
//
// With few tiles K is split over blocks, which leave partial sums in `partial`; `gemm_reduce` adds them in a fixed
// order and finishes.
#pragma once
#include "epilogue.cuh"
#include "ptx.cuh"
#include "window.cuh"

struct GemmParams {
    // `a`: [entries * m, K] or a map; `b`: [N, K] or [entries * K, N].
    Operand a, b, out;
    Epilogue epilogue;
    // [splits, m, n rounded up to 8] when `splits` > 1.
    float* partial;
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
    // Elements that are loaded from a and b and stored to out at once; see above.
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
static_assert(sizeof(GemmParams) == 272, "as in Rust");

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
    if (n >= p.n) return;
    const Place to = place_of(p, row, n);
    if (to.col >= p.out.cols) return;
    const uint32_t left = p.out.cols - to.col;
    finish<HALF>(p.epilogue, p.out, to.row, to.col, sums, left < 8 ? left : 8, p.out_width == 8);
}

// Stores eight neighbouring sums of a row: as partial sums, or finished.
template <bool HALF>
DEVICE void deliver(const GemmParams& p, uint32_t row, uint32_t n, float (&sums)[8]) {
    if (p.splits == 1) {
        finish<HALF>(p, row, n, sums);
    } else if (n < p.n) {
        store_floats<8>(p.partial + (size_t(blockIdx.z) * p.m + row) * partial_pitch(p) + n, sums);
    }
}

// The same with a layer norm, for whole rows of N columns, which N / 8 lanes of a warp have between them. All lanes of the warp are
// here, also those whose row is not `inside`.
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

template <class A, class B>
struct SameType {
    static constexpr bool kValue = false;
};
template <class A>
struct SameType<A, A> {
    static constexpr bool kValue = true;
};

// How a block's threads divide a tile of ROWS rows of COLS elements into chunks of 16 bytes, in shared memory with a
// chunk between rows, which keeps the reads of matrix loads out of each other's banks.
template <class T, int ROWS, int COLS, int THREADS>
struct Chunks {
    static constexpr int kChunk = 16 / int(sizeof(T));
    static constexpr int kAcross = COLS / kChunk;
    static constexpr int kPitch = COLS + kChunk;
    static constexpr int kEach = ROWS * kAcross / THREADS;
    static constexpr int kRowStep = THREADS / kAcross;
    static constexpr int kElements = ROWS * kPitch;
    static_assert(COLS % kChunk == 0 && THREADS % kAcross == 0 && ROWS % kRowStep == 0, "whole chunks for each thread");
};

// Copies a chunk of which the first `valid` elements exist, whole or in pieces, as `width` says.
template <class T>
DEVICE void copy_chunk(T* to, const T* from, int valid, uint32_t width) {
    constexpr int kChunk = 16 / int(sizeof(T)), kPiece = 4 / int(sizeof(T));
    valid = valid < 0 ? 0 : valid > kChunk ? kChunk : valid;
    if (width == kChunk) {
        copy_async<16>(to, from, valid ? 16 : 0);
    } else {
#pragma unroll
        for (int i = 0; i < kChunk; i += kPiece) {
            const int piece = valid - i < 0 ? 0 : valid - i > kPiece ? kPiece : valid - i;
            copy_async<4>(to + i, piece ? from + i : from, uint32_t(piece) * sizeof(T));
        }
    }
}

// The rows first..first + ROWS of a matrix, BK columns at a time.
template <class T, int ROWS, int BK, int THREADS>
struct MatrixRows {
    using Layout = Chunks<T, ROWS, BK, THREADS>;
    const Operand& source;
    uint32_t first, count, k, width;
    // This thread's part of each row, and a bit for each row that exists.
    const T* parts[Layout::kEach];
    uint32_t exists = 0;

    // `count`: rows of the operand that belong to the product.
    DEVICE MatrixRows(const Operand& source, uint32_t first, uint32_t count, uint32_t k, uint32_t width)
        : source(source), first(first), count(count), k(k), width(width) {
        const uint32_t column = threadIdx.x % Layout::kAcross * Layout::kChunk;
#pragma unroll
        for (int i = 0; i < Layout::kEach; i++) {
            const uint32_t row = first + threadIdx.x / Layout::kAcross + i * Layout::kRowStep;
            const bool inside = row < count;
            exists |= uint32_t(inside) << i;
            parts[i] = static_cast<const T*>(source.data) + size_t(inside ? row : 0) * source.pitch + column;
        }
    }
    DEVICE void advance() {}
    // Slice number `slice` to shared memory.
    DEVICE void load_slice(T* tile, uint32_t slice) {
        const uint32_t own = threadIdx.x / Layout::kAcross, chunk = threadIdx.x % Layout::kAcross * Layout::kChunk;
        const int left = int(k) - int(slice * BK + chunk);
        T* const to = tile + own * Layout::kPitch + chunk;
        if (width == Layout::kChunk) {
            // Not past the matrix, though nothing is read there.
            const uint32_t start = left > 0 ? slice * BK : 0;
#pragma unroll
            for (int i = 0; i < Layout::kEach; i++) {
                const bool there = left > 0 && exists >> i & 1;
                copy_async<16>(to + i * Layout::kRowStep * Layout::kPitch, parts[i] + start, there ? 16 : 0);
            }
            return;
        }
#pragma unroll 1
        for (int i = 0; i < Layout::kEach; i++) {
            const uint32_t row = first + own + i * Layout::kRowStep;
            load_chunk(to + i * Layout::kRowStep * Layout::kPitch, row, slice * BK + chunk, row < count ? left : 0);
        }
    }
    // A chunk by pieces or elements.
    DEVICE void load_chunk(T* to, uint32_t row, uint32_t column, int valid) const {
        if (width) {
            const T* data = static_cast<const T*>(source.data);
            copy_chunk(to, valid > 0 ? data + size_t(row) * source.pitch + column : data, valid, width);
        } else {
#pragma unroll 1
            for (int e = 0; e < Layout::kChunk; e++) {
                to[e] = from_float<T>(e < valid ? load(source, row, column + e) : 0.0f);
            }
        }
    }
};

// Rows of windows: row r is the window of output pixel r.
template <class T, int ROWS, int BK, int THREADS>
struct WindowRows {
    using Layout = Chunks<T, ROWS, BK, THREADS>;
    const Operand& source;
    const Window& window;
    uint32_t width;
    // Where this thread's chunk of the next slice begins: channel and tap.
    uint32_t channel, tap_x, tap_y;
    // For each row: where in the image the window begins, and the pixel there, counted from the first of all images.
    int32_t y[Layout::kEach], x[Layout::kEach], begin[Layout::kEach];

    DEVICE WindowRows(const Operand& source, const Window& window, uint32_t first, uint32_t count, uint32_t width,
                      uint32_t first_slice)
        : source(source), window(window), width(width) {
        const uint32_t k = first_slice * BK + threadIdx.x % Layout::kAcross * Layout::kChunk;
        const uint32_t tap = k / window.channels_padded;
        channel = k - tap * window.channels_padded;
        tap_y = tap / window.kernel_w;
        tap_x = tap - tap_y * window.kernel_w;
#pragma unroll
        for (int i = 0; i < Layout::kEach; i++) {
            const uint32_t row = first + threadIdx.x / Layout::kAcross + i * Layout::kRowStep;
            const uint32_t line = row / window.out_w, n = line / window.out_h;
            x[i] = int32_t((row - line * window.out_w) * window.stride_w) - int32_t(window.pad_left);
            y[i] = int32_t((line - n * window.out_h) * window.stride_h) - int32_t(window.pad_top);
            begin[i] = int32_t(n * window.in_h * window.in_w) + y[i] * int32_t(window.in_w) + x[i];
            // Rows past the end see only padding.
            if (row >= count) y[i] = -0x40000000;
        }
    }
    DEVICE void advance() {
        channel += BK;
        while (channel >= window.channels_padded) {
            channel -= window.channels_padded;
            if (++tap_x == window.kernel_w) {
                tap_x = 0;
                tap_y++;
            }
        }
    }
    DEVICE bool inside(int i, uint32_t ty, uint32_t tx) const {
        return ty < window.kernel_h && uint32_t(y[i] + int32_t(ty)) < window.in_h &&
               uint32_t(x[i] + int32_t(tx)) < window.in_w;
    }
    DEVICE uint32_t pixel(int i, uint32_t ty, uint32_t tx) const { return uint32_t(begin[i]) + ty * window.in_w + tx; }
    DEVICE void load_slice(T* tile, uint32_t) {
        const uint32_t own = threadIdx.x / Layout::kAcross, chunk = threadIdx.x % Layout::kAcross * Layout::kChunk;
        T* const to = tile + own * Layout::kPitch + chunk;
        if (width == Layout::kChunk) {
            const T* const data = static_cast<const T*>(source.data);
#pragma unroll
            for (int i = 0; i < Layout::kEach; i++) {
                const bool there = channel < window.channels && inside(i, tap_y, tap_x);
                copy_async<16>(to + i * Layout::kRowStep * Layout::kPitch,
                               there ? data + size_t(pixel(i, tap_y, tap_x)) * source.pitch + channel : data, there ? 16 : 0);
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < Layout::kEach; i++) load_chunk(to + i * Layout::kRowStep * Layout::kPitch, i);
    }
    // A chunk by pieces or elements.
    DEVICE void load_chunk(T* to, int i) const {
        if (width) {
            const T* const data = static_cast<const T*>(source.data);
            const int valid = inside(i, tap_y, tap_x) ? int(window.channels) - int(channel) : 0;
            const T* const from = data + size_t(pixel(i, tap_y, tap_x)) * source.pitch + channel;
            copy_chunk(to, valid > 0 ? from : data, valid, width);
        } else {
            load_elements(to, i);
        }
    }
    DEVICE void load_elements(T* to, int i) const {
        uint32_t c = channel, tx = tap_x, ty = tap_y;
        auto next = [&]() {
            if (++c < window.channels) return;
            c = 0;
            if (++tx < window.kernel_w) return;
            tx = 0;
            ty++;
        };
        if (source.type == (SameType<T, float>::kValue ? F32 : F16)) {
            // All loads are under way before the first is waited for.
            T values[Layout::kChunk];
#pragma unroll
            for (int e = 0; e < Layout::kChunk; e++, next()) {
                values[e] = from_float<T>(0.0f);
                if (inside(i, ty, tx)) values[e] = *element<const T>(source, pixel(i, ty, tx), c);
            }
#pragma unroll
            for (int e = 0; e < Layout::kChunk; e++) to[e] = values[e];
        } else {
#pragma unroll 1
            for (int e = 0; e < Layout::kChunk; e++, next()) {
                to[e] = from_float<T>(inside(i, ty, tx) ? load(source, pixel(i, ty, tx), c) : 0.0f);
            }
        }
    }
};

// BK rows at a time of a [K, N] matrix, the columns first..first + BN.
template <class T, int BN, int BK, int THREADS>
struct MatrixColumns {
    using Layout = Chunks<T, BK, BN, THREADS>;
    const Operand& source;
    // Rows above this entry of the batch.
    uint32_t above, first, n, k, width;

    DEVICE void load_slice(T* tile, uint32_t slice) {
        const uint32_t column = first + threadIdx.x % Layout::kAcross * Layout::kChunk;
        const uint32_t own = threadIdx.x / Layout::kAcross;
#pragma unroll
        for (int i = 0; i < Layout::kEach; i++) {
            const uint32_t r = own + i * Layout::kRowStep, row = slice * BK + r;
            T* to = tile + r * Layout::kPitch + threadIdx.x % Layout::kAcross * Layout::kChunk;
            const int valid = row < k ? int(n) - int(column) : 0;
            if (width) {
                const T* data = static_cast<const T*>(source.data);
                copy_chunk(to, valid > 0 ? data + size_t(above + row) * source.pitch + column : data, valid, width);
            } else {
#pragma unroll 1
                for (int e = 0; e < Layout::kChunk; e++) {
                    to[e] = from_float<T>(e < valid ? load(source, above + row, column + e) : 0.0f);
                }
            }
        }
    }
};

// What one thread sums of a tile, for f16: each warp has WM x WN of it, in 16 x 8 products.
template <int BM, int BN, int WM, int WN, int THREADS, bool B_ROWS_ARE_K>
struct TensorSums {
    static_assert(BM / WM * (BN / WN) * 32 == THREADS && WM % 16 == 0 && WN % 16 == 0, "warps cover the tile");
    float sums[WM / 16][WN / 8][4] = {};

    DEVICE uint32_t warp_row() const { return threadIdx.x / 32 / (BN / WN) * WM; }
    DEVICE uint32_t warp_col() const { return threadIdx.x / 32 % (BN / WN) * WN; }

    template <int BK>
    DEVICE void add(const __half* a_tile, int a_pitch, const __half* b_tile, int b_pitch) {
        const uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < BK; k += 16) {
            uint32_t a[WM / 16][4], b[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; i++) {
                load_matrices(a[i], a_tile + (warp_row() + i * 16 + lane % 16) * a_pitch + k + lane / 16 * 8);
            }
#pragma unroll
            for (int j = 0; j < WN / 16; j++) {
                if constexpr (B_ROWS_ARE_K) {
                    load_matrices_transposed(b[j],
                                             b_tile + (k + lane % 16) * b_pitch + warp_col() + j * 16 + lane / 16 * 8);
                } else {
                    load_matrices(b[j], b_tile + (warp_col() + j * 16 + lane % 8 + lane / 16 * 8) * b_pitch + k +
                                            lane / 8 % 2 * 8);
                }
            }
#pragma unroll
            for (int i = 0; i < WM / 16; i++) {
#pragma unroll
                for (int j = 0; j < WN / 8; j++) {
                    multiply_16x8x16(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }

    DEVICE void stage(float* staging, int pitch) const {
        const uint32_t lane = threadIdx.x % 32;
        float* own = staging + (warp_row() + lane / 4) * pitch + warp_col() + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < WM / 16; i++) {
#pragma unroll
            for (int j = 0; j < WN / 8; j++) {
#pragma unroll
                for (int e = 0; e < 4; e++) own[(i * 16 + e / 2 * 8) * pitch + j * 8 + e % 2] = sums[i][j][e];
            }
        }
    }
};

// The same for f32: a thread has rows and columns that are 1 / TM and 1 / TN of the tile apart.
template <int BM, int BN, int TM, int TN, int THREADS, bool B_ROWS_ARE_K>
struct FmaSums {
    static constexpr int kAcross = BN / TN, kDown = BM / TM;
    static_assert(kAcross * kDown == THREADS, "threads cover the tile");
    float sums[TM][TN] = {};

    template <int BK>
    DEVICE void add(const float* a_tile, int a_pitch, const float* b_tile, int b_pitch) {
        const uint32_t tx = threadIdx.x % kAcross, ty = threadIdx.x / kAcross;
#pragma unroll
        for (int k = 0; k < BK; k += 4) {
            float4 a[TM];
#pragma unroll
            for (int i = 0; i < TM; i++) {
                a[i] = *reinterpret_cast<const float4*>(a_tile + (ty + i * kDown) * a_pitch + k);
            }
#pragma unroll
            for (int j = 0; j < TN; j++) {
                float4 b;
                if constexpr (B_ROWS_ARE_K) {
                    const float* column = b_tile + k * b_pitch + tx + j * kAcross;
                    b = make_float4(column[0], column[b_pitch], column[2 * b_pitch], column[3 * b_pitch]);
                } else {
                    b = *reinterpret_cast<const float4*>(b_tile + (tx + j * kAcross) * b_pitch + k);
                }
#pragma unroll
                for (int i = 0; i < TM; i++) {
                    sums[i][j] += a[i].x * b.x;
                    sums[i][j] += a[i].y * b.y;
                    sums[i][j] += a[i].z * b.z;
                    sums[i][j] += a[i].w * b.w;
                }
            }
        }
    }

    DEVICE void stage(float* staging, int pitch) const {
        float* own = staging + threadIdx.x / kAcross * pitch + threadIdx.x % kAcross;
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) own[i * kDown * pitch + j * kAcross] = sums[i][j];
        }
    }
};

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
#pragma unroll 1
    for (uint32_t at = threadIdx.x; at < BM * BN / 8; at += kThreads) {
        const uint32_t r = at / (BN / 8), c = at % (BN / 8) * 8;
        const bool inside = first_row + r < end_row;
        const float4* own = reinterpret_cast<const float4*>(staging + r * kPitch + c);
        float v[8] = {own[0].x, own[0].y, own[0].z, own[0].w, own[1].x, own[1].y, own[1].z, own[1].w};
        if constexpr (NORM) {
            finish_normed<BN>(p, first_row + r, first_col + c, inside, v);
        } else if (inside) {
            deliver<TILE::kHalf>(p, first_row + r, first_col + c, v);
        }
    }
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
