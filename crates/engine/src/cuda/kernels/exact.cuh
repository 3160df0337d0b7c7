// Arithmetic that is rounded after each operation, as on the host: for what decides. Elsewhere the compiler may join a
// product and a sum.
#pragma once
#include "abi.cuh"

DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
DEVICE float sub(float a, float b) { return __fadd_rn(a, -b); }
#if defined(__CUDACC__)
DEVICE double mul(double a, double b) { return __dmul_rn(a, b); }
DEVICE double add(double a, double b) { return __dadd_rn(a, b); }
#else
DEVICE double mul(double a, double b) { return a * b; }
DEVICE double add(double a, double b) { return a + b; }
#endif
DEVICE double sub(double a, double b) { return add(a, -b); }

DEVICE bool is_finite(float v) { return fabsf(v) < INFINITY; }
