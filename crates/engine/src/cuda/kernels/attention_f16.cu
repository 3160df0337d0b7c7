// Attention on tensor cores for f16 storage: scores and sums in f32, weights rounded to f16 for the second product. See
// `attention.cu` for the method.
#include "attention.cuh"
#include "ptx.cuh"

constexpr uint32_t WARPS = 4;
constexpr float LOG2_E = 1.44269504088896341f;

// Lower than any score, and finite: differences from it are no NaN.
constexpr float LOWEST = -1e30f;

DEVICE uint32_t as_pair(float low, float high) {
    return uint32_t(__half_as_ushort(__float2half_rn(low))) | uint32_t(__half_as_ushort(__float2half_rn(high))) << 16;
}

// Where the tokens of a block are: rows of windows are worked out once, for they take divisions.
struct Tokens {
    const AttentionParams& p;
    // Rows of all tokens of the block's window, NO_ROW outside the map.
    const uint32_t* window_rows;

    DEVICE uint32_t row(uint32_t batch, uint32_t token, uint32_t tokens) const {
        return p.side == 0 ? batch * tokens + token : window_rows[token];
    }
};

// COUNT tokens from `first` on to shared memory, D columns each with zeros past the head's, PITCH apart. Tokens past `tokens` are
// zeros.
template <uint32_t D, uint32_t PITCH, uint32_t COUNT>
DEVICE void fetch(const Tokens& at, const Operand& from, uint32_t d, uint32_t batch, uint32_t first, uint32_t tokens,
                  __half* to) {
    const AttentionParams& p = at.p;
    const uint32_t column = blockIdx.y * d;
    auto row_of = [&](uint32_t token) {
        const uint32_t row = at.row(batch, token, tokens);
        return row == NO_ROW ? p.outside_row : row;
    };
    if (p.width == 8) {
#pragma unroll
        for (uint32_t i = threadIdx.x; i < COUNT * (D / 8); i += 32 * WARPS) {
            const uint32_t token = first + i / (D / 8), c = i % (D / 8) * 8;
            const bool inside = token < tokens && c < d;
            copy_async<16>(to + i / (D / 8) * PITCH + c,
                           element<const __half>(from, inside ? row_of(token) : 0, inside ? column + c : 0),
                           inside ? 16 : 0);
        }
    } else {
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < COUNT * D; i += 32 * WARPS) {
            const uint32_t token = first + i / D, c = i % D;
            const bool inside = token < tokens && c < d;
            to[i / D * PITCH + c] =
                inside ? *element<const __half>(from, row_of(token), column + c) : __float2half_rn(0.0f);
        }
    }
}

// What some of the keys give to an element of the result: their highest score, and sums of weights and of weighted values
// relative to it.
struct Part {
    float highest, sum, value;
};

// What the parts 0..count give together.
template <class F>
DEVICE Part join(uint32_t count, F part) {
    Part all{LOWEST, 0.0f, 0.0f};
    for (uint32_t i = 0; i < count; i++) all.highest = fmaxf(all.highest, part(i).highest);
    for (uint32_t i = 0; i < count; i++) {
        const Part one = part(i);
        const float share = exp2_approx(one.highest - all.highest);
        all.sum += share * one.sum;
        all.value += share * one.value;
    }
    return all;
}

// A part of the result of a head and a query: see AttentionParams.
DEVICE float* part_of(const AttentionParams& p, uint32_t part, uint32_t row, uint32_t head) {
    const uint32_t each = p.out.cols / p.heads + 2;
    return p.partial + ((size_t(part) * p.out.rows + row) * p.heads + head) * each;
}

// Heads of at most D elements. The block's warps take 16 queries each, or with SPLIT the same 16 and a quarter of the keys,
// whose parts are then joined; of the keys a block then has a part itself, if there are `parts`.
template <uint32_t D, bool SPLIT>
DEVICE void attend(const AttentionParams& p) {
    constexpr uint32_t PITCH = D + 8;  // rows on different banks
    // Keys that are in shared memory at once, twice: with few blocks nothing but more of them hides how long a tile takes.
    constexpr uint32_t TILE = SPLIT ? 4096 / D : 64;
    constexpr uint32_t QUERIES = SPLIT ? 16 : 16 * WARPS, KEYS = SPLIT ? TILE / WARPS : TILE;
    DYNAMIC_SHARED(__half, shared);
    __half* const q_rows = shared;
    __half* const tiles = shared + QUERIES * PITCH;  // keys, values, then the next tile's
    uint32_t* const window_rows = reinterpret_cast<uint32_t*>(tiles + 4 * TILE * PITCH);
    const uint32_t batch = blockIdx.z, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (batch >= valid_rows(p.batches)) return;
    const uint32_t d = p.q.cols / p.heads, dv = p.v.cols / p.heads;
    const uint32_t q_batch = p.shared_q != 0 ? 0 : batch, k_batch = p.shared_k != 0 ? 0 : batch;
    const uint32_t part = SPLIT ? blockIdx.x % p.parts : 0;
    const uint32_t first_key = part * p.part_keys, some_keys = p.keys - first_key;
    const uint32_t end_key = !SPLIT || some_keys < p.part_keys ? p.keys : first_key + p.part_keys;
    const uint32_t block_query = (SPLIT ? blockIdx.x / p.parts : blockIdx.x) * QUERIES, warp_query = SPLIT ? 0 : warp * 16, warp_key = SPLIT ? warp * KEYS : 0;
    if (p.side != 0) {
        for (uint32_t token = threadIdx.x; token < p.keys; token += 32 * WARPS) {
            window_rows[token] = token_row(p, batch, token, p.keys, NO_ROW);
        }
        __syncthreads();
    }
    const Tokens at{p, window_rows};

    auto fetch_tile = [&](uint32_t first) {
        __half* const to = tiles + first / TILE % 2 * (2 * TILE * PITCH);
        fetch<D, PITCH, TILE>(at, p.k, d, k_batch, first, p.keys, to);
        fetch<D, PITCH, TILE>(at, p.v, dv, k_batch, first, p.keys, to + TILE * PITCH);
    };
    fetch<D, PITCH, QUERIES>(at, p.q, d, q_batch, block_query, p.queries, q_rows);
    fetch_tile(first_key);
    copy_commit();

    // This thread's part of a product: rows `lane / 4` and 8 below, columns `lane % 4 * 2` and the next of every eight.
    const uint32_t query = block_query + warp_query + lane / 4, pair = lane % 4 * 2;
    const float scale = p.scale * LOG2_E;
    uint32_t q[D / 16][4];
    float result[D / 8][4], highest[2] = {LOWEST, LOWEST}, sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (uint32_t c = 0; c < D / 8; c++) {
#pragma unroll
        for (int i = 0; i < 4; i++) result[c][i] = 0.0f;
    }

    for (uint32_t tile = first_key; tile < end_key; tile += TILE) {
        if (tile + TILE < end_key) fetch_tile(tile + TILE);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        const __half* const k_rows = tiles + tile / TILE % 2 * (2 * TILE * PITCH);
        const __half* const v_rows = k_rows + TILE * PITCH;
        if (tile == first_key) {
#pragma unroll
            for (uint32_t c = 0; c < D / 16; c++) {
                load_matrices(q[c], q_rows + (warp_query + lane % 16) * PITCH + c * 16 + lane / 16 * 8);
            }
        }
        // Keys of this warp that are left, and its part of them, 16 at a time.
        const uint32_t first = tile + warp_key, left = first < p.keys ? p.keys - first : 0;

        float scores[KEYS / 8][4];
#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n += 2) {
            if (n * 8 >= left) continue;
#pragma unroll
            for (int i = 0; i < 4; i++) scores[n][i] = scores[n + 1][i] = 0.0f;
            const __half* const rows = k_rows + (warp_key + n * 8 + lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 8;
#pragma unroll
            for (uint32_t c = 0; c < D / 16; c++) {
                uint32_t k[4];
                load_matrices(k, rows + c * 16);
                multiply_16x8x16(scores[n], q[c], k[0], k[1]);
                multiply_16x8x16(scores[n + 1], q[c], k[2], k[3]);
            }
        }

        const __half* bias_rows[2] = {};
        if (p.bias.data && left) {
#pragma unroll
            for (uint32_t r = 0; r < 2; r++) {
                bias_rows[r] = element<const __half>(p.bias, head * p.bias_rows + query + r * 8, first + pair);
            }
        }
        float now[2] = {highest[0], highest[1]};
#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n++) {
            if (n / 2 * 16 >= left) continue;
            if (p.bias.data) {
#pragma unroll
                for (uint32_t r = 0; r < 2; r++) {
                    float bias[2];
                    load_floats<2>(bias, bias_rows[r] + n * 8);
                    scores[n][2 * r] = scores[n][2 * r] * scale + bias[0];
                    scores[n][2 * r + 1] = scores[n][2 * r + 1] * scale + bias[1];
                }
            } else {
#pragma unroll
                for (uint32_t i = 0; i < 4; i++) {
                    scores[n][i] = n * 8 + pair + i % 2 < left ? scores[n][i] * scale : -INFINITY;
                }
            }
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) now[i / 2] = fmaxf(now[i / 2], scores[n][i]);
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            now[r] = fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 1));
            now[r] = fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 2));
            const float fade = exp2_approx(highest[r] - now[r]);
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
            if (n / 2 * 16 >= left) continue;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores[n][i] = exp2_approx(scores[n][i] - highest[i / 2]);
                sum[i / 2] += scores[n][i];
            }
        }

#pragma unroll
        for (uint32_t n = 0; n < KEYS / 8; n += 2) {
            if (n * 8 < left) {
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
            const uint32_t row = token < p.queries ? at.row(batch, token, p.queries) : NO_ROW;
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
            const uint32_t to = at.row(batch, token, p.queries);
            if (to == NO_ROW) continue;
            const Part all = join(WARPS, [&](uint32_t w) {
                return Part{parts_highest[w][row], parts_sum[w][row], parts[(w * 16 + row) * D + column]};
            });
            if (p.parts == 1) {
                store(p.out, to, head * dv + column, all.value / all.sum);
                continue;
            }
            float* const own = part_of(p, part, to, head);
            own[column] = all.value;
            if (column == 0) {
                own[dv] = all.highest;
                own[dv + 1] = all.sum;
            }
        }
    }
}

KERNEL_BOUNDED(attention_f16_16, AttentionParams, 128) { attend<16, false>(p); }
KERNEL_BOUNDED(attention_f16_32, AttentionParams, 128) { attend<32, false>(p); }
KERNEL_BOUNDED(attention_f16_64, AttentionParams, 128) { attend<64, false>(p); }
KERNEL_BOUNDED(attention_f16_16_split, AttentionParams, 128) { attend<16, true>(p); }
KERNEL_BOUNDED(attention_f16_32_split, AttentionParams, 128) { attend<32, true>(p); }
KERNEL_BOUNDED(attention_f16_64_split, AttentionParams, 128) { attend<64, true>(p); }

// Joins the parts: a thread has one element of the result.
KERNEL_BOUNDED(attention_f16_join, AttentionParams, 256) {
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x, row = at / p.out.cols, column = at - row * p.out.cols;
    if (row / p.queries >= valid_rows(p.batches)) return;
    const uint32_t dv = p.out.cols / p.heads, head = column / dv, own = column - head * dv;
    const Part all = join(p.parts, [&](uint32_t part) {
        const float* const from = part_of(p, part, row, head);
        return Part{from[dv], from[dv + 1], from[own]};
    });
    store(p.out, row, column, all.value / all.sum);
}
