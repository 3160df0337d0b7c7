// softmax(scale * q k^T + bias) v for each head, one pass over the keys (T. Dao et al., "FlashAttention", 2022, with the
// running maximum of M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018). This form takes f32
// and mixed storage; `attention_f16.cu` uses tensor cores.
#include "attention.cuh"
#include "warp.cuh"

constexpr uint32_t WARPS = 4, QUERIES = 4, KEYS = 32;  // a warp takes 4 queries, the block's warps share tiles of 32 keys

// Score of what is left out: its exponential is 0 relative to any finite one.
DEVICE float exp_relative(float score, float highest) { return score == -INFINITY ? 0.0f : expf(score - highest); }

// Heads of at most 32 * PER_LANE elements. Lanes hold a key each for the scores and PER_LANE columns each of the results.
template <int PER_LANE>
DEVICE void attend(const AttentionParams& p) {
    constexpr uint32_t WIDE = 32 * PER_LANE;
    SHARED(float, q_rows, [WARPS * QUERIES][WIDE]);
    SHARED(float, k_rows, [KEYS][WIDE + 1]);
    SHARED(float, v_rows, [KEYS][WIDE]);
    SHARED(float, weights, [WARPS][QUERIES][KEYS]);
    const uint32_t batch = blockIdx.z, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (batch >= valid_rows(p.batches)) return;
    const uint32_t d = p.q.cols / p.heads, dv = p.v.cols / p.heads;
    const uint32_t q_batch = p.shared_q != 0 ? 0 : batch, k_batch = p.shared_k != 0 ? 0 : batch;
    const uint32_t block_query = blockIdx.x * WARPS * QUERIES, first = block_query + warp * QUERIES;

    for (uint32_t i = threadIdx.x; i < WARPS * QUERIES * WIDE; i += blockDim.x) {
        const uint32_t query = block_query + i / WIDE, column = i % WIDE;
        const bool inside = query < p.queries && column < d;
        const uint32_t row = inside ? token_row(p, q_batch, query, p.queries, p.outside_row) : 0;
        q_rows[i / WIDE][column] = inside ? p.scale * load(p.q, row, head * d + column) : 0.0f;
    }

    float highest[QUERIES], sum[QUERIES], result[QUERIES][PER_LANE];
#pragma unroll
    for (uint32_t i = 0; i < QUERIES; i++) {
        highest[i] = -INFINITY;
        sum[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < PER_LANE; c++) result[i][c] = 0.0f;
    }

    for (uint32_t tile = 0; tile < p.keys; tile += KEYS) {
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < KEYS * WIDE; i += blockDim.x) {
            const uint32_t key = tile + i / WIDE, column = i % WIDE;
            const uint32_t row = key < p.keys ? token_row(p, k_batch, key, p.keys, p.outside_row) : 0;
            k_rows[i / WIDE][column] = key < p.keys && column < d ? load(p.k, row, head * d + column) : 0.0f;
            v_rows[i / WIDE][column] = key < p.keys && column < dv ? load(p.v, row, head * dv + column) : 0.0f;
        }
        __syncthreads();
        const uint32_t key = tile + lane;
#pragma unroll
        for (uint32_t i = 0; i < QUERIES; i++) {
            float score = -INFINITY;
            if (key < p.keys && first + i < p.queries) {
                score = 0.0f;
                for (uint32_t c = 0; c < d; c++) score += q_rows[warp * QUERIES + i][c] * k_rows[lane][c];
                if (p.bias.data) score += load(p.bias, head * p.queries + first + i, key);
            }
            const float before = highest[i], now = fmaxf(before, warp_max(score));
            const float weight = exp_relative(score, now), fade = exp_relative(before, now);
            highest[i] = now;
            sum[i] = sum[i] * fade + warp_sum(weight);
#pragma unroll
            for (int c = 0; c < PER_LANE; c++) result[i][c] *= fade;
            weights[warp][i][lane] = weight;
        }
        __syncwarp();
        const uint32_t keys = min(KEYS, p.keys - tile);
        for (uint32_t j = 0; j < keys; j++) {
#pragma unroll
            for (uint32_t i = 0; i < QUERIES; i++) {
#pragma unroll
                for (int c = 0; c < PER_LANE; c++) result[i][c] += weights[warp][i][j] * v_rows[j][c * 32 + lane];
            }
        }
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        if (first + i >= p.queries) break;
        const uint32_t row = token_row(p, batch, first + i, p.queries, NO_ROW);
        if (row == NO_ROW) continue;
#pragma unroll
        for (int c = 0; c < PER_LANE; c++) {
            const uint32_t column = c * 32 + lane;
            if (column < dv) store(p.out, row, head * dv + column, result[i][c] / sum[i]);
        }
    }
}

KERNEL_BOUNDED(attention_32, AttentionParams, 128) { attend<1>(p); }
KERNEL_BOUNDED(attention_64, AttentionParams, 128) { attend<2>(p); }
KERNEL_BOUNDED(attention_96, AttentionParams, 128) { attend<3>(p); }
KERNEL_BOUNDED(attention_128, AttentionParams, 128) { attend<4>(p); }
