// How a box moves: `track/filter.rs`. `Config` has `measurement_noise`, `acceleration_noise`, `nominal_dt_s` and `coast_s`.
#pragma once
#include "boxes.cuh"

constexpr float MIN_SIZE = 1e-4f, MAX_SIZE = 2.0f, MARGIN = 1.0f;

DEVICE void keep_in_range(float* box) {
    for (int i = 0; i < 4; i++) {
        box[i] = fminf(fmaxf(box[i], i < 2 ? -MARGIN : MIN_SIZE), i < 2 ? 1.0f + MARGIN : MAX_SIZE);
    }
}

template <class Config>
DEVICE void predict(const Config& config, float* box, float* velocity, float dt_s, bool coasting) {
    const bool fading = coasting || dt_s > config.coast_s;
    const float fade = fading ? expf(-dt_s / config.coast_s) : 1.0f;
    const float span_s = fading ? mul(config.coast_s, sub(1.0f, fade)) : dt_s;
    for (int i = 0; i < 4; i++) {
        if (fading && i >= 2) velocity[i] = 0.0f;
        box[i] = add(box[i], mul(velocity[i], span_s));
        velocity[i] = mul(velocity[i], fade);
    }
    keep_in_range(box);
}

template <class Config>
DEVICE void correct(const Config& config, float* box, float* velocity, const Box& detected, float elapsed_s,
                    int32_t hits) {
    const bool moved = elapsed_s > 0.0f;
    const float t = moved ? elapsed_s : config.nominal_dt_s;
    const float index = mul(mul(config.acceleration_noise, t), t) / config.measurement_noise;
    const float root = sqrtf(add(mul(index, index), mul(8.0f, index)));
    const float r = 4.0f / add(add(4.0f, index), root);
    const float alpha = fmaxf(sub(1.0f, mul(r, r)), 1.0f / add(float(hits > 0 ? hits : 0), 1.0f));
    const float beta = mul(mul(2.0f, sub(1.0f, r)), sub(1.0f, r)), beta_per_s = moved ? beta / t : 0.0f;
    for (int i = 0; i < 4; i++) {
        const float residual = sub(detected.v[i], box[i]);
        box[i] = add(box[i], mul(alpha, residual));
        velocity[i] = add(velocity[i], mul(beta_per_s, residual));
    }
    keep_in_range(box);
}
