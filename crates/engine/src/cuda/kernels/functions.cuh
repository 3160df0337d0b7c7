// Elementwise functions by their numbers: `UnaryOp` and `BinaryOp`, in the order of their declaration.
#pragma once
#include "abi.cuh"

// Where both kinds are numbered together, those of two arguments come after this.
constexpr uint32_t BINARY = 64;

DEVICE float unary(uint32_t op, float x, float alpha, float beta) {
    switch (op) {
        case 0: return fmaxf(x, 0.0f);
        case 1: return x / (1.0f + expf(-x));
        case 2: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
        case 3: return 1.0f / (1.0f + expf(-x));
        case 4: return tanhf(x);
        case 5: return expf(x);
        case 6: return logf(x);
        case 7: return sqrtf(x);
        case 8: return sinf(x);
        case 9: return cosf(x);
        case 10: return fabsf(x);
        case 11: return fminf(fmaxf(x, alpha), beta);
        default: return alpha * x + beta;
    }
}

DEVICE float binary(uint32_t op, float a, float b) {
    switch (op) {
        case 0: return a + b;
        case 1: return a - b;
        case 2: return a * b;
        case 3: return a / b;
        case 4: return fmaxf(a, b);
        default: return fminf(a, b);
    }
}
