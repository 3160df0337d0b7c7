// What the threads of a block add up of a tile.
#pragma once
#include "ptx.cuh"

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
