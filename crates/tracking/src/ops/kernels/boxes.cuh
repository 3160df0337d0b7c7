// Overlap of boxes, as in `assignment/cost.rs`.
#pragma once
#include "exact.cuh"

struct Box {
    float v[4];
};

DEVICE Box box_at(const float* boxes, uint32_t i) { return {{boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]}}; }

// Sum of the absolute differences of two boxes in (cx, cy, w, h).
DEVICE float l1_cxcywh(const Box& a, const Box& b) {
    float sum = fabsf(sub(a.v[0], b.v[0]));
    for (int i = 1; i < 4; i++) sum = add(sum, fabsf(sub(a.v[i], b.v[i])));
    return sum;
}

struct Overlap {
    float iou, giou;
};

DEVICE Box xyxy_from_cxcywh(const Box& b) {
    const float half_w = mul(0.5f, fmaxf(b.v[2], 0.0f)), half_h = mul(0.5f, fmaxf(b.v[3], 0.0f));
    return {{sub(b.v[0], half_w), sub(b.v[1], half_h), add(b.v[0], half_w), add(b.v[1], half_h)}};
}

DEVICE float area_xyxy(const Box& b) { return mul(sub(b.v[2], b.v[0]), sub(b.v[3], b.v[1])); }

DEVICE Overlap overlap_cxcywh(const Box& a_cxcywh, const Box& b_cxcywh) {
    const Box a = xyxy_from_cxcywh(a_cxcywh), b = xyxy_from_cxcywh(b_cxcywh);
    const float width = fmaxf(sub(fminf(a.v[2], b.v[2]), fmaxf(a.v[0], b.v[0])), 0.0f);
    const float height = fmaxf(sub(fminf(a.v[3], b.v[3]), fmaxf(a.v[1], b.v[1])), 0.0f);
    const float intersection = mul(width, height);
    const float together = sub(add(area_xyxy(a), area_xyxy(b)), intersection);
    const float enclosing = mul(sub(fmaxf(a.v[2], b.v[2]), fminf(a.v[0], b.v[0])),
                                sub(fmaxf(a.v[3], b.v[3]), fminf(a.v[1], b.v[1])));
    const float iou = intersection / together;
    return {iou, sub(iou, sub(enclosing, together) / enclosing)};
}
