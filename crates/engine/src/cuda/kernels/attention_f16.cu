// Attention on tensor cores for f16 storage: scores and sums in f32, weights rounded to f16 for the second product. See
// `attention.cu` for the method.
#include "attention.cuh"
#include "ptx.cuh"

constexpr uint32_t WARPS = 4, TILE = 64;  // keys that are in shared memory at once, twice
constexpr float LOG2_E = 1.44269504088896341f;

// 2^(score - highest); what is left out weighs nothing.
DEVICE float exp2_relative(float score, float highest) { return score == -INFINITY ? 0.0f : exp2f(score - highest); }

DEVICE uint32_t as_pair(float low, float high) {
    return uint32_t(__half_as_ushort(__float2half_rn(low))) | uint32_t(__half_as_ushort(__float2half_rn(high))) << 16;
}

// Rows of tokens to shared memory, D columns each with zeros past the head's, PITCH apart. Tokens past `tokens` are zeros.
template <uint32_t D, uint32_t PITCH>
DEVICE void fetch(const AttentionParams& p, const Operand& from, uint32_t d, uint32_t batch, uint32_t first, uint32_t count,
                  uint32_t tokens, __half* to) {
    const uint32_t column = blockIdx.y * d;
    if (p.width == 8) {
        for (uint32_t i = threadIdx.x; i < count * (D / 8); i += 32 * WARPS) {
            const uint32_t token = first + i / (D / 8), c = i % (D / 8) * 8;
            const bool inside = token < tokens && c < d;
            const uint32_t row = inside ? token_row(p, batch, token, tokens, p.outside_row) : 0;
            copy_async<16>(to + i / (D / 8) * PITCH + c, element<const __half>(from, row, inside ? column + c : 0),
                           inside ? 16 : 0);
        }
    } else {
        for (uint32_t i = threadIdx.x; i < count * D; i += 32 * WARPS) {
            const uint32_t token = first + i / D, c = i % D;
            const bool inside = token < tokens && c < d;
            const uint32_t row = inside ? token_row(p, batch, token, tokens, p.outside_row) : 0;
            to[i / D * PITCH + c] = inside ? *element<const __half>(from, row, column + c) : __float2half_rn(0.0f);
        }
    }
}

// Heads of at most D elements. The block's warps take 16 queries each, or with SPLIT the same 16 and a quarter of the keys,
// whose parts are then joined.
template <uint32_t D, bool SPLIT>
DEVICE void attend(const AttentionParams& p) {
    constexpr uint32_t PITCH = D + 8;  // rows on different banks
    constexpr uint32_t QUERIES = SPLIT ? 16 : 16 * WARPS, KEYS = SPLIT ? TILE / WARPS : TILE;
    DYNAMIC_SHARED(__half, shared);
    __half* const q_rows = shared;
    __half* const tiles = shared + QUERIES * PITCH;  // keys, values, then the next tile's
    const uint32_t batch = blockIdx.z, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (batch >= valid_rows(p.batches)) return;
    const uint32_t d = p.q.cols / p.heads, dv = p.v.cols / p.heads;
    const uint32_t q_batch = p.shared_q != 0 ? 0 : batch, k_batch = p.shared_k != 0 ? 0 : batch;
    const uint32_t block_query = blockIdx.x * QUERIES, warp_query = SPLIT ? 0 : warp * 16, warp_key = SPLIT ? warp * KEYS : 0;

    auto fetch_tile = [&](uint32_t first) {
        __half* const to = tiles + first / TILE % 2 * (2 * TILE * PITCH);
        fetch<D, PITCH>(p, p.k, d, k_batch, first, TILE, p.keys, to);
        fetch<D, PITCH>(p, p.v, dv, k_batch, first, TILE, p.keys, to + TILE * PITCH);
    };
    fetch<D, PITCH>(p, p.q, d, q_batch, block_query, QUERIES, p.queries, q_rows);
    fetch_tile(0);
    copy_commit();

    // This thread's part of a product: rows `lane / 4` and 8 below, columns `lane % 4 * 2` and the next of every eight.
    const uint32_t query = block_query + warp_query + lane / 4, pair = lane % 4 * 2;
    const float scale = p.scale * LOG2_E;
    uint32_t q[D / 16][4];
    float result[D / 8][4], highest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (uint32_t c = 0; c < D / 8; c++) {
#pragma unroll
        for (int i = 0; i < 4; i++) result[c][i] = 0.0f;
    }

    for (uint32_t tile = 0; tile < p.keys; tile += TILE) {
        if (tile + TILE < p.keys) fetch_tile(tile + TILE);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        const __half* const k_rows = tiles + tile / TILE % 2 * (2 * TILE * PITCH);
        const __half* const v_rows = k_rows + TILE * PITCH;
        if (tile == 0) {
#pragma unroll
            for (uint32_t c = 0; c < D / 16; c++) {
                load_matrices(q[c], q_rows + (warp_query + lane % 16) * PITCH + c * 16 + lane / 16 * 8);
            }
        }
        const uint32_t first = tile + warp_key;

        float scores[KEYS / 8][4];
#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n += 2) {
#pragma unroll
            for (int i = 0; i < 4; i++) scores[n][i] = scores[n + 1][i] = 0.0f;
            if (first + n * 8 < p.keys) {
                const __half* const rows =
                    k_rows + (warp_key + n * 8 + lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 8;
#pragma unroll
                for (uint32_t c = 0; c < D / 16; c++) {
                    uint32_t k[4];
                    load_matrices(k, rows + c * 16);
                    multiply_16x8x16(scores[n], q[c], k[0], k[1]);
                    multiply_16x8x16(scores[n + 1], q[c], k[2], k[3]);
                }
            }
        }

        float now[2] = {highest[0], highest[1]};
#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                const uint32_t key = first + n * 8 + pair + i % 2, row = query + i / 2 * 8;
                if (key >= p.keys) {
                    scores[n][i] = -INFINITY;
                } else {
                    scores[n][i] *= scale;
                    if (p.bias.data && row < p.queries) {
                        const size_t at = size_t(head * p.queries + row) * p.bias.pitch + key;
                        scores[n][i] += LOG2_E * load_at(p.bias, at);
                    }
                    now[i / 2] = fmaxf(now[i / 2], scores[n][i]);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            now[r] = fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 1));
            now[r] = fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 2));
            const float fade = exp2_relative(highest[r], now[r]);
            highest[r] = now[r];
            sum[r] *= fade;
#pragma unroll
            for (uint32_t c = 0; c < D / 8; c++) {
                result[c][2 * r] *= fade;
                result[c][2 * r + 1] *= fade;
            }
        }
#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores[n][i] = exp2_relative(scores[n][i], highest[i / 2]);
                sum[i / 2] += scores[n][i];
            }
        }

#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n += 2) {
            if (first + n * 8 < p.keys) {
                const uint32_t weights[4] = {
                    as_pair(scores[n][0], scores[n][1]), as_pair(scores[n][2], scores[n][3]),
                    as_pair(scores[n + 1][0], scores[n + 1][1]), as_pair(scores[n + 1][2], scores[n + 1][3])};
                const __half* const rows =
                    v_rows + (warp_key + n * 8 + lane / 8 % 2 * 8 + lane % 8) * PITCH + lane / 16 * 8;
#pragma unroll
                for (uint32_t c = 0; c < D / 8; c += 2) {
                    uint32_t v[4];
                    load_matrices_transposed(v, rows + c * 8);
                    multiply_16x8x16(result[c], weights, v[0], v[1]);
                    multiply_16x8x16(result[c + 1], weights, v[2], v[3]);
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
        sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    }

    if constexpr (!SPLIT) {
#pragma unroll
        for (uint32_t r = 0; r < 2; r++) {
            const uint32_t token = query + r * 8;
            const uint32_t row = token < p.queries ? token_row(p, batch, token, p.queries, NO_ROW) : NO_ROW;
            if (row == NO_ROW) continue;
            const float factor = 1.0f / sum[r];
#pragma unroll
            for (uint32_t c = 0; c < D / 8; c++) {
                const uint32_t column = c * 8 + pair;
                const float two[2] = {result[c][2 * r] * factor, result[c][2 * r + 1] * factor};
                if (p.width == 8) {
                    if (column < dv) store_floats<2>(element<__half>(p.out, row, head * dv + column), two);
                } else {
                    for (uint32_t i = 0; i < 2 && column + i < dv; i++) store(p.out, row, head * dv + column + i, two[i]);
                }
            }
        }
    } else {
        // Parts as [warp][row][column], in the memory of the tiles, and their maxima and sums.
        SHARED(float, parts_highest, [WARPS][16]);
        SHARED(float, parts_sum, [WARPS][16]);
        float* const parts = reinterpret_cast<float*>(tiles);
#pragma unroll
        for (uint32_t r = 0; r < 2; r++) {
            const uint32_t row = lane / 4 + r * 8;
            if (lane % 4 == 0) {
                parts_highest[warp][row] = highest[r];
                parts_sum[warp][row] = sum[r];
            }
#pragma unroll
            for (uint32_t c = 0; c < D / 8; c++) {
                parts[(warp * 16 + row) * D + c * 8 + pair] = result[c][2 * r];
                parts[(warp * 16 + row) * D + c * 8 + pair + 1] = result[c][2 * r + 1];
            }
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < 16 * D; i += 32 * WARPS) {
            const uint32_t row = i / D, column = i % D, token = block_query + row;
            if (token >= p.queries || column >= dv) continue;
            const uint32_t to = token_row(p, batch, token, p.queries, NO_ROW);
            if (to == NO_ROW) continue;
            float all = -INFINITY, total = 0.0f, value = 0.0f;
            for (uint32_t w = 0; w < WARPS; w++) all = fmaxf(all, parts_highest[w][row]);
            for (uint32_t w = 0; w < WARPS; w++) {
                const float share = exp2_relative(parts_highest[w][row], all);
                total += share * parts_sum[w][row];
                value += share * parts[(w * 16 + row) * D + column];
            }
            store(p.out, to, head * dv + column, value / total);
        }
    }
}

KERNEL_BOUNDED(attention_f16_16, AttentionParams, 128) { attend<16, false>(p); }
KERNEL_BOUNDED(attention_f16_32, AttentionParams, 128) { attend<32, false>(p); }
KERNEL_BOUNDED(attention_f16_64, AttentionParams, 128) { attend<64, false>(p); }
KERNEL_BOUNDED(attention_f16_16_split, AttentionParams, 128) { attend<16, true>(p); }
KERNEL_BOUNDED(attention_f16_32_split, AttentionParams, 128) { attend<32, true>(p); }
KERNEL_BOUNDED(attention_f16_64_split, AttentionParams, 128) { attend<64, true>(p); }
