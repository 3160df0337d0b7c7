// What both forms of attention share: arguments, and where tokens are.
#pragma once
#include "access.cuh"

constexpr uint32_t NO_ROW = 0xffffffffu;

struct AttentionParams {
    Operand q, k, v, out;  // `[tokens, heads * dims]`, heads side by side
    // Added to the scores; without data there is none: `[heads * queries, keys]`, or, for tensor cores, in f16 for powers of two,
    // `[heads * bias_rows, keys]` with as many rows and columns as blocks look at, very low past the last key.
    Operand bias;
    Rows batches;
    // Where keys are shared out among blocks on tensor cores, what each part gives: [parts, rows of `out`, heads, columns of a head
    // and then the highest score and the sum of the weights].
    float* partial;
    uint32_t heads, queries, keys;
    uint32_t shared_q, shared_k;  // 1: one batch of queries, or of keys and values, serves all
    float scale;
    uint32_t width;  // 8: heads and rows of q, k, v and out start at multiples of 8 elements, which heads have; else 1
    // With a side, tokens are the pixels of windows of `height` x `width_px` maps: `across` windows in a row, `per_image` in
    // a map. Pixels outside the map have q, k and v in `outside_row`, and no result.
    uint32_t side, height, width_px, across, per_image, outside_row;
    uint32_t bias_rows;
    uint32_t parts, part_keys;  // `part_keys`: a multiple of a tile
};

// Row of a token of a batch, or `outside` where a window's pixel is outside its map.
DEVICE uint32_t token_row(const AttentionParams& p, uint32_t batch, uint32_t token, uint32_t tokens, uint32_t outside) {
    if (p.side == 0) return batch * tokens + token;
    const uint32_t image = batch / p.per_image, window = batch % p.per_image;
    const uint32_t y = window / p.across * p.side + token / p.side, x = window % p.across * p.side + token % p.side;
    return y < p.height && x < p.width_px ? (image * p.height + y) * p.width_px + x : outside;
}
