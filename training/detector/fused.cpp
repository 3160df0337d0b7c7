// Batch normalisation, activation and scalar affine in one pass each way, channels last.
//
// PyTorch runs these as four to seven passes over memory on a CPU (normalise, clamp, scale, shift; and for the
// scalar affine two whole-tensor sums on the way back). Together they cost more than the convolutions.
// Here: one pass for the statistics, one for the output; back: one for the sums, one for the gradient.
//
// y = scale * act(gamma * (x - mean) / sqrt(var + eps) + beta) + shift, x [rows, channels].

#include <torch/extension.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace {

enum Act { NONE = 0, RELU = 1, SILU = 2 };
constexpr int64_t BLOCK = 256;  // rows summed in float before going on in double

inline float load(const float* p) { return *p; }
inline void store(float* p, float v) { *p = v; }
inline float load(const uint16_t* p) {
  uint32_t bits = uint32_t(*p) << 16;
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
inline void store(uint16_t* p, float v) {  // round to nearest even
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  *p = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x by 2^n times a polynomial, relative error below 3e-6. Unlike the library's it becomes vector code.
inline float exponential(float x) {
  float t = std::min(std::max(x, -87.f), 87.f) * 1.442695041f;
  float n = std::nearbyint(t), f = t - n;
  float p = 1.f + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * (0.00961813f + f * 0.00133336f))));
  int32_t bits = (int32_t(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

template <int ACT>
inline float act(float z) {
  if (ACT == RELU) return z > 0 ? z : 0.f;
  if (ACT == SILU) return z / (1.f + exponential(-z));
  return z;
}
template <int ACT>
inline float slope(float z) {
  if (ACT == RELU) return z > 0 ? 1.f : 0.f;
  if (ACT == SILU) {
    float s = 1.f / (1.f + exponential(-z));
    return s * (1.f + z * (1.f - s));
  }
  return 1.f;
}

template <typename T>
void moments(const T* x, int64_t rows, int64_t c, float* mean, float* var) {
  std::vector<double> sum(c, 0.0), square(c, 0.0);
  std::vector<float> a(c), b(c), origin(c);
  for (int64_t j = 0; j < c; j++) origin[j] = load(x + j);  // shifted, so that large means do not cancel
  for (int64_t start = 0; start < rows; start += BLOCK) {
    std::fill(a.begin(), a.end(), 0.f);
    std::fill(b.begin(), b.end(), 0.f);
    float *pa = a.data(), *pb = b.data();
    const float* po = origin.data();
    for (int64_t i = start; i < std::min(rows, start + BLOCK); i++) {
      const T* row = x + i * c;
#pragma GCC ivdep
      for (int64_t j = 0; j < c; j++) {
        float v = load(row + j) - po[j];
        pa[j] += v;
        pb[j] += v * v;
      }
    }
    for (int64_t j = 0; j < c; j++) sum[j] += a[j], square[j] += b[j];
  }
  for (int64_t j = 0; j < c; j++) {
    double m = sum[j] / rows;
    mean[j] = float(m + origin[j]);
    var[j] = float(std::max(0.0, square[j] / rows - m * m));
  }
}

template <typename T, int ACT>
void apply(const T* x, T* y, int64_t rows, int64_t c, const float* gain, const float* offset, float s, float t) {
  for (int64_t i = 0; i < rows; i++) {
    const T* in = x + i * c;
    T* out = y + i * c;
#pragma GCC ivdep
    for (int64_t j = 0; j < c; j++) store(out + j, s * act<ACT>(load(in + j) * gain[j] + offset[j]) + t);
  }
}

template <typename T, int ACT>
void backward_pass(const T* x, const T* gy, T* gx, int64_t rows, int64_t c, const float* gain, const float* offset,
                   const float* mean, const float* rstd, float s, float* dgamma, float* dbeta, double* dscale,
                   double* dshift) {
  std::vector<double> sum_g(c, 0.0), sum_gx(c, 0.0), sum_y(c, 0.0), sum_t(c, 0.0);
  std::vector<float> a(c), b(c), d(c), e(c);
  for (int64_t start = 0; start < rows; start += BLOCK) {
    std::fill(a.begin(), a.end(), 0.f);
    std::fill(b.begin(), b.end(), 0.f);
    std::fill(d.begin(), d.end(), 0.f);
    std::fill(e.begin(), e.end(), 0.f);
    float *pa = a.data(), *pb = b.data(), *pd = d.data(), *pe = e.data();
    for (int64_t i = start; i < std::min(rows, start + BLOCK); i++) {
      const T *in = x + i * c, *up = gy + i * c;
#pragma GCC ivdep
      for (int64_t j = 0; j < c; j++) {
        float v = load(in + j), u = load(up + j), z = v * gain[j] + offset[j];
        float g = u * s * slope<ACT>(z);
        pa[j] += g;
        pb[j] += g * (v - mean[j]);
        pd[j] += u * act<ACT>(z);
        pe[j] += u;
      }
    }
    for (int64_t j = 0; j < c; j++) sum_g[j] += a[j], sum_gx[j] += b[j], sum_y[j] += d[j], sum_t[j] += e[j];
  }
  *dscale = *dshift = 0;
  std::vector<float> k0(c), k1(c);
  for (int64_t j = 0; j < c; j++) {
    dgamma[j] = float(sum_gx[j] * rstd[j]);
    dbeta[j] = float(sum_g[j]);
    *dscale += sum_y[j];
    *dshift += sum_t[j];
    k0[j] = float(sum_g[j] / rows);
    k1[j] = float(sum_gx[j] * double(rstd[j]) * rstd[j] / rows);
  }
  for (int64_t i = 0; i < rows; i++) {
    const T *in = x + i * c, *up = gy + i * c;
    T* out = gx + i * c;
#pragma GCC ivdep
    for (int64_t j = 0; j < c; j++) {
      float v = load(in + j), z = v * gain[j] + offset[j];
      float g = load(up + j) * s * slope<ACT>(z);
      store(out + j, gain[j] * (g - k0[j] - (v - mean[j]) * k1[j]));
    }
  }
}

template <typename F>
void by_act(int64_t kind, F f) {
  if (kind == RELU) f(std::integral_constant<int, RELU>());
  else if (kind == SILU) f(std::integral_constant<int, SILU>());
  else f(std::integral_constant<int, NONE>());
}

template <typename F>
void by_type(const at::Tensor& x, F f) {
  if (x.scalar_type() == at::kFloat) f((float*)x.data_ptr());
  else f((uint16_t*)x.data_ptr());
}

}  // namespace

// x: [N, C, H, W] channels last, float or bfloat16; the parameters float.
std::vector<at::Tensor> forward(at::Tensor x, at::Tensor gamma, at::Tensor beta, double eps, int64_t kind, double s,
                                double t) {
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, "float or bfloat16");
  x = x.contiguous(at::MemoryFormat::ChannelsLast);
  int64_t c = x.size(1), rows = x.numel() / c;
  auto y = at::empty_like(x);
  auto options = gamma.options();
  auto mean = at::empty({c}, options), var = at::empty({c}, options);
  by_type(x, [&](auto* p) { moments(p, rows, c, mean.data_ptr<float>(), var.data_ptr<float>()); });
  auto rstd = (var + eps).rsqrt();
  auto gain = (gamma * rstd).contiguous(), offset = (beta - mean * gamma * rstd).contiguous();
  by_type(x, [&](auto* p) {
    auto* q = (decltype(p))y.data_ptr();
    by_act(kind, [&](auto k) {
      apply<std::decay_t<decltype(*p)>, decltype(k)::value>(p, q, rows, c, gain.data_ptr<float>(),
                                                            offset.data_ptr<float>(), float(s), float(t));
    });
  });
  return {y, mean, var, rstd, gain, offset, x};
}

std::vector<at::Tensor> backward(at::Tensor gy, at::Tensor x, at::Tensor mean, at::Tensor rstd, at::Tensor gain,
                                 at::Tensor offset, int64_t kind, double s) {
  gy = gy.to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
  int64_t c = x.size(1), rows = x.numel() / c;
  auto gx = at::empty_like(x);
  auto dgamma = at::empty_like(mean), dbeta = at::empty_like(mean);
  double dscale = 0, dshift = 0;
  by_type(x, [&](auto* p) {
    auto *u = (decltype(p))gy.data_ptr(), *q = (decltype(p))gx.data_ptr();
    by_act(kind, [&](auto k) {
      backward_pass<std::decay_t<decltype(*p)>, decltype(k)::value>(
          p, u, q, rows, c, gain.data_ptr<float>(), offset.data_ptr<float>(), mean.data_ptr<float>(),
          rstd.data_ptr<float>(), float(s), dgamma.data_ptr<float>(), dbeta.data_ptr<float>(), &dscale, &dshift);
    });
  });
  return {gx, dgamma, dbeta, at::full({1}, dscale, mean.options()), at::full({1}, dshift, mean.options())};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
