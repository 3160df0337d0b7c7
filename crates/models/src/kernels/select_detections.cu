// The few detections worth handing on, by one block: see `dfine/postprocess.rs`.
#include "exact.cuh"
#include "sort.cuh"

constexpr float MIN_SIDE = 1e-4f;
constexpr int32_t NO_LABEL = -1;

struct SelectDetectionsParams {
    Operand logits;        // `[Q, classes]`
    const float* boxes;    // `[Q, 4]`, cxcywh
    float* out_boxes;      // `[K, 4]`
    float* scores;         // `[K]`
    int32_t* labels;       // `[K]`
    int32_t* count;
    uint64_t* candidates;  // room for a power of two of keys that all candidates fit in, or null: in shared memory
    uint32_t most;         // K
    float threshold;
    uint32_t one_label_per_query;
    float max_overlap_iou;
};

DEVICE float sigmoid(float x) { return 1.0f / add(1.0f, expf(-x)); }

struct Box {
    float v[4];
};

// The part of a box inside the unit square; false if there is nothing of it or it is not finite.
DEVICE bool inside_image(const float* cxcywh, Box& inside) {
    float corner[4];
    for (int i = 0; i < 4; i++) {
        if (!is_finite(cxcywh[i])) return false;
        const float half = cxcywh[2 + i % 2] / 2.0f;
        const float at = i < 2 ? sub(cxcywh[i], half) : add(cxcywh[i - 2], half);
        corner[i] = fminf(fmaxf(at, 0.0f), 1.0f);
    }
    const float w = sub(corner[2], corner[0]), h = sub(corner[3], corner[1]);
    inside = {{add(corner[0], corner[2]) / 2.0f, add(corner[1], corner[3]) / 2.0f, w, h}};
    return w >= MIN_SIDE && h >= MIN_SIDE;
}

DEVICE float overlap_along(const float* a, const float* b, int axis) {
    const float low = fmaxf(sub(a[axis], a[axis + 2] / 2.0f), sub(b[axis], b[axis + 2] / 2.0f));
    const float high = fminf(add(a[axis], a[axis + 2] / 2.0f), add(b[axis], b[axis + 2] / 2.0f));
    return fmaxf(sub(high, low), 0.0f);
}

DEVICE bool iou_exceeds(const float* a, const float* b, float limit) {
    const float intersection = mul(overlap_along(a, b, 0), overlap_along(a, b, 1));
    return intersection > mul(limit, sub(add(mul(a[2], a[3]), mul(b[2], b[3])), intersection));
}

KERNEL_BOUNDED(select_detections, SelectDetectionsParams, 512) {
    DYNAMIC_SHARED(uint64_t, in_shared);
    SHARED(uint32_t, found, );
    uint64_t* const keys = p.candidates ? p.candidates : in_shared;
    const uint32_t classes = p.logits.cols;
    const float* const logits = static_cast<const float*>(p.logits.data);
    for (uint32_t i = threadIdx.x; i < p.most; i += blockDim.x) {
        for (uint32_t j = 0; j < 4; j++) p.out_boxes[4 * i + j] = 0.0f;
        p.scores[i] = 0.0f;
        p.labels[i] = NO_LABEL;
    }
    if (threadIdx.x == 0) found = 0;
    __syncthreads();

    // Candidates in any order, with keys that put the best first.
    if (p.one_label_per_query != 0) {
        for (uint32_t q = threadIdx.x; q < p.logits.rows; q += blockDim.x) {
            uint64_t best = 0;
            for (uint32_t c = 0; c < classes; c++) {
                const float logit = logits[q * classes + c];
                const uint64_t key = logit != logit ? 0 : sort_key(logit, q * classes + c);
                best = key > best ? key : best;
            }
            if (best != 0 && sigmoid(logits[index_of_key(best)]) >= p.threshold) keys[atomicAdd(&found, 1u)] = best;
        }
    } else {
        for (uint32_t i = threadIdx.x; i < p.logits.rows * classes; i += blockDim.x) {
            // False for NaN.
            if (sigmoid(logits[i]) >= p.threshold) keys[atomicAdd(&found, 1u)] = sort_key(logits[i], i);
        }
    }
    __syncthreads();
    const uint32_t candidates = found;
    uint32_t sorted = 1;
    while (sorted < candidates) sorted *= 2;
    for (uint32_t i = candidates + threadIdx.x; i < sorted; i += blockDim.x) keys[i] = 0;
    block_sort_descending(keys, sorted);

    if (threadIdx.x >= 32) return;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < candidates && kept < p.most; i++) {
        const uint32_t candidate = index_of_key(keys[i]);
        Box box;
        if (!inside_image(p.boxes + size_t(candidate / classes) * 4, box)) continue;
        if (p.max_overlap_iou < 1.0f) {
            bool gives_way = false;
            for (uint32_t other = threadIdx.x; other < kept; other += 32) {
                gives_way = gives_way || iou_exceeds(box.v, p.out_boxes + 4 * other, p.max_overlap_iou);
            }
            if (__any_sync(0xffffffffu, gives_way)) continue;
        }
        if (threadIdx.x == 0) {
            for (int j = 0; j < 4; j++) p.out_boxes[4 * kept + j] = box.v[j];
            p.scores[kept] = sigmoid(logits[candidate]);
            p.labels[kept] = int32_t(candidate % classes);
        }
        __syncwarp();
        kept++;
    }
    if (threadIdx.x == 0) *p.count = int32_t(kept);
}
