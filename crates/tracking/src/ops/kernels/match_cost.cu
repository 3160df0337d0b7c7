// What each pair of a query and a target costs: see `assignment/cost.rs`. A thread a pair.
#include "boxes.cuh"

struct MatchCostParams {
    Operand logits;          // `[Q, C]`
    const float* boxes;      // `[Q, 4]`, cxcywh
    const int32_t* labels;   // `[T]`
    const float* targets;    // `[T, 4]`
    float* costs;            // `[Q, T]`
    uint32_t target_count;
    uint32_t focal;          // 0: softmax
    float alpha, gamma;
    float class_weight, bbox_weight, giou_weight;
    float nan_cost, taken_cost;
    uint32_t reserved;
};

DEVICE float class_cost(const MatchCostParams& p, const float* logits, uint32_t label) {
    const float logit = logits[label];
    if (p.focal == 0) {
        float highest = -INFINITY, sum = 0.0f;
        for (uint32_t c = 0; c < p.logits.cols; c++) highest = logits[c] > highest ? logits[c] : highest;
        for (uint32_t c = 0; c < p.logits.cols; c++) sum = add(sum, expf(sub(logits[c], highest)));
        return -(expf(sub(logit, highest)) / sum);
    }
    const float epsilon = 1e-8f;
    const float yes = 1.0f / add(1.0f, expf(-logit)), no = 1.0f / add(1.0f, expf(logit));
    const float negative = mul(mul(sub(1.0f, p.alpha), powf(yes, p.gamma)), -logf(add(no, epsilon)));
    const float positive = mul(mul(p.alpha, powf(no, p.gamma)), -logf(add(yes, epsilon)));
    return sub(positive, negative);
}

KERNEL(match_cost, MatchCostParams) {
    const uint32_t pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= p.logits.rows * p.target_count) return;
    const uint32_t q = pair / p.target_count, t = pair % p.target_count;
    const int32_t label = p.labels[t];
    if (label < 0 || uint32_t(label) >= p.logits.cols) {
        p.costs[pair] = INFINITY;
        return;
    }
    const Box query = box_at(p.boxes, q), target = box_at(p.targets, t);
    const float* const logits = static_cast<const float*>(p.logits.data) + size_t(q) * p.logits.pitch;
    const float cost = sub(add(mul(p.bbox_weight, l1_cxcywh(query, target)),
                               mul(p.class_weight, class_cost(p, logits, uint32_t(label)))),
                           mul(p.giou_weight, overlap_cxcywh(query, target).giou));
    p.costs[pair] = cost != cost ? p.nan_cost : is_finite(cost) ? cost : cost > 0.0f ? p.taken_cost : -p.taken_cost;
}
