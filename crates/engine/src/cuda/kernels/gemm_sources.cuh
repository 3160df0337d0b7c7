// How slices of the operands of a product come to shared memory.
//
// Order of K for windows: tap by tap (row-major), each with `channels_padded` channels, of which the last are zero in
// the weights. How elements are loaded is decided at lowering, by alignment:
//   - a_width = 16 bytes / element: whole chunks, of which all elements exist or none;
//   - a_width = 4 bytes / element: four-byte pieces of chunks;
//   - a_width = 0: one by one, from any type. For windows `channels_padded` is then `channels`: K is dense.
// Likewise b_width.
#pragma once
#include "ptx.cuh"
#include "window.cuh"

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
