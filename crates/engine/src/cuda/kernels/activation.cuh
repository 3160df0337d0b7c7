// Activations of layers.
#pragma once
#include "ptx.cuh"

enum Activation : uint32_t { NONE = 0, RELU = 1, SILU = 2, GELU = 3, SIGMOID = 4, TANH = 5, CLAMP = 6 };

// With HALF, for sums of f16 products: within 1e-4, at less than half the price.
template <bool HALF>
DEVICE float sigmoid(float v) {
    if (HALF) return reciprocal_approx(1.0f + exp2_approx(v * -1.44269504088896341f));
    return 1.0f / (1.0f + expf(-v));
}

// v times the normal distribution function, not the tanh approximation.
template <bool HALF>
DEVICE float gelu(float v) {
    if (!HALF) return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
    // A polynomial for the distribution function less 1/2, which is 1/2 at END: the least largest |v * error| that eight terms
    // have, 8.2e-5.
    constexpr float END = 4.2f;
    const float x = fminf(fmaxf(v, -END), END), t = x * x;
    float sum = -9.017483426632111e-10f;
    sum = sum * t + 7.94131054249192e-08f;
    sum = sum * t - 3.037925580429146e-06f;
    sum = sum * t + 6.689065048703924e-05f;
    sum = sum * t - 9.506576461717486e-04f;
    sum = sum * t + 9.298233315348625e-03f;
    sum = sum * t - 6.552822142839432e-02f;
    sum = sum * t + 3.984659016132355e-01f;
    // What is not a number stays that, though the bounds above lose it.
    return v * (x * sum + 0.5f);
}

// One choice for all. `low` and `high` are the bounds of a clamp; what is not a number stays that.
template <bool HALF, int N>
DEVICE void activate(uint32_t activation, float low, float high, float (&v)[N]) {
    switch (activation) {
        case RELU:
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = v[i] < 0.0f ? 0.0f : v[i];
            break;
        case SILU:
#pragma unroll
            for (int i = 0; i < N; i++) v[i] *= sigmoid<HALF>(v[i]);
            break;
        case GELU:
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = gelu<HALF>(v[i]);
            break;
        case SIGMOID:
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = sigmoid<HALF>(v[i]);
            break;
        case TANH:
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = tanhf(v[i]);
            break;
        case CLAMP:
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = v[i] < low ? low : v[i] > high ? high : v[i];
            break;
        default: break;
    }
}
