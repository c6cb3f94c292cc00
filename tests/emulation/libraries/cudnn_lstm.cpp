#include "tests/emulation/libraries/cudnn_lstm.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/common/bf16.h"
#include "tests/emulation/runtime/runtime.h"

namespace emulation {
namespace {

using carousel::bf16;

double load(cudnnDataType_t type, const void* data, std::size_t i) {
  if (type == CUDNN_DATA_BFLOAT16) return static_cast<const bf16*>(data)[i];
  if (type == CUDNN_DATA_HALF) return static_cast<double>(static_cast<const _Float16*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

void store(cudnnDataType_t type, void* data, std::size_t i, double value) {
  if (type == CUDNN_DATA_BFLOAT16) {
    static_cast<bf16*>(data)[i] = bf16(value);
  } else if (type == CUDNN_DATA_HALF) {
    static_cast<_Float16*>(data)[i] = static_cast<_Float16>(value);
  } else {
    static_cast<float*>(data)[i] = static_cast<float>(value);
  }
}

const char* at(const void* data, std::size_t bytes) {
  return static_cast<const char*>(data) + bytes;
}

double logistic(double a) { return 1 / (1 + std::exp(-a)); }

/// Each part of the parameters begins at a multiple of 32 bytes.
std::size_t aligned(std::size_t bytes) { return (bytes + 31) / 32 * 32; }

/// What the pass before left in the reserve.
constexpr double kForwardDone = 1234.5, kDataDone = 2345.6, kNothing = 0;

}  // namespace

/// The reserve: what was done last; gates or, after the backward pass of the data, their gradients;
/// cell states.
struct CudnnLstm::Saved {
  double* const done;
  double* const gates;  // [T, B, 4, H]
  double* const c;      // [T, B, H]

  explicit Saved(const CudnnLstm& l)
      : done(static_cast<double*>(l.reserve)), gates(done + 1), c(gates + l.T * l.B * 4 * l.H) {}

  void expect(double before, const char* what) const {
    if (*done != before) throw std::runtime_error(what);
  }
};

std::size_t CudnnLstm::weight_at(std::size_t product) const {
  std::size_t bytes = 0;  // from the last product to the first
  for (std::size_t p = 7; p > product; --p) {
    bytes += aligned(H * (p < 4 ? I : H) * element_bytes());
  }
  return bytes;
}

std::size_t CudnnLstm::bias_at(std::size_t product) const {
  const std::size_t weights_end = weight_at(0) + aligned(H * I * element_bytes());
  return weights_end + (7 - product) * aligned(H * element_bytes());
}

std::size_t CudnnLstm::parameter_bytes() const { return bias_at(0) + aligned(H * element_bytes()); }

std::size_t CudnnLstm::reserve_bytes() const { return (1 + T * B * 5 * H) * sizeof(double); }

double CudnnLstm::weight(std::size_t product, std::size_t row, std::size_t column) const {
  const std::size_t columns = product < 4 ? I : H;
  return load(type, at(weights, weight_at(product)), row * columns + column);
}

double CudnnLstm::bias(std::size_t product, std::size_t row) const {
  return load(type, at(weights, bias_at(product)), row);
}

void CudnnLstm::queue(cudaStream_t stream, void (CudnnLstm::*pass)() const) const {
  enqueue(stream, [*this, pass] { (this->*pass)(); });
}

void CudnnLstm::forward() const {
  const Saved saved(*this);
  auto* const a = static_cast<double*>(workspace);  // [B, 4, H] of one step
  for (std::size_t t = 0; t < T; ++t) {
    for (std::size_t b = 0; b < B; ++b) {
      for (std::size_t p = 0; p < 4; ++p) {
        for (std::size_t r = 0; r < H; ++r) {
          double sum = bias(p, r) + bias(p + 4, r);
          for (std::size_t k = 0; k < I; ++k) {
            sum += weight(p, r, k) * load(type, x, (t * B + b) * I + k);
          }
          for (std::size_t k = 0; k < H; ++k) {
            sum += weight(p + 4, r, k) *
                   (t == 0 ? load(type, h0, b * H + k) : load(type, y, ((t - 1) * B + b) * H + k));
          }
          a[(b * 4 + p) * H + r] = sum;
        }
      }
    }
    for (std::size_t n = 0; n < B * H; ++n) {
      const std::size_t b = n / H, r = n % H;
      double* const gate = saved.gates + (t * B + b) * 4 * H + r;
      for (std::size_t p = 0; p < 4; ++p) {
        const double sum = a[(b * 4 + p) * H + r];
        gate[p * H] = p == 2 ? std::tanh(sum) : logistic(sum);
      }
      const double before = t == 0 ? load(type, c0, n) : saved.c[(t - 1) * B * H + n];
      const double after = gate[H] * before + gate[0] * gate[2 * H];
      saved.c[t * B * H + n] = after;
      store(type, y, t * B * H + n, gate[3 * H] * std::tanh(after));
    }
  }
  for (std::size_t n = 0; n < B * H; ++n) {
    store(type, h_last, n, load(type, y, (T - 1) * B * H + n));
    store(type, c_last, n, saved.c[(T - 1) * B * H + n]);
  }
  *saved.done = kForwardDone;
}

void CudnnLstm::backward_data() const {
  const Saved saved(*this);
  saved.expect(kForwardDone,
               "cudnnRNNBackwardData_v8: the reserve is not as a forward pass left it");
  std::vector<double> d_h(B * H), d_c(B * H);  // of the state that leaves the step in hand
  for (std::size_t n = 0; n < B * H; ++n) {
    d_h[n] = load(type, d_h_last, n);
    d_c[n] = load(type, d_c_last, n);
  }
  auto* const d_a = static_cast<double*>(workspace);  // [B, 4, H] of one step
  for (std::size_t t = T; t-- > 0;) {
    for (std::size_t n = 0; n < B * H; ++n) {
      const std::size_t b = n / H, r = n % H;
      double* const gate = saved.gates + (t * B + b) * 4 * H + r;
      const double i = gate[0], f = gate[H], g = gate[2 * H], o = gate[3 * H];
      const double tanh_c = std::tanh(saved.c[t * B * H + n]);
      const double before = t == 0 ? load(type, c0, n) : saved.c[(t - 1) * B * H + n];
      const double to_h = d_h[n] + load(type, d_y, t * B * H + n);
      const double to_c = d_c[n] + to_h * o * (1 - tanh_c * tanh_c);
      double* const d = d_a + b * 4 * H + r;
      gate[0] = d[0] = to_c * g * i * (1 - i);
      gate[H] = d[H] = to_c * before * f * (1 - f);
      gate[2 * H] = d[2 * H] = to_c * i * (1 - g * g);
      gate[3 * H] = d[3 * H] = to_h * tanh_c * o * (1 - o);
      d_c[n] = to_c * f;
    }
    const auto product = [&](std::size_t first, std::size_t b, std::size_t column) {
      double sum = 0;
      for (std::size_t p = 0; p < 4; ++p) {
        for (std::size_t r = 0; r < H; ++r) {
          sum += weight(first + p, r, column) * d_a[(b * 4 + p) * H + r];
        }
      }
      return sum;
    };
    for (std::size_t b = 0; b < B; ++b) {
      for (std::size_t k = 0; k < H; ++k) d_h[b * H + k] = product(4, b, k);
      for (std::size_t k = 0; k < I; ++k) store(type, d_x, (t * B + b) * I + k, product(0, b, k));
    }
  }
  for (std::size_t n = 0; n < B * H; ++n) {
    store(type, d_h0, n, d_h[n]);
    store(type, d_c0, n, d_c[n]);
  }
  *saved.done = kDataDone;
}

void CudnnLstm::backward_weights() const {
  const Saved saved(*this);
  saved.expect(kDataDone,
               "cudnnRNNBackwardWeights_v8: the reserve is not as cudnnRNNBackwardData_v8 left it");
  const auto add = [&](std::size_t bytes, std::size_t i, double value) {
    char* const to = static_cast<char*>(d_weights) + bytes;
    store(type, to, i, load(type, to, i) + value);
  };
  for (std::size_t p = 0; p < 8; ++p) {
    const std::size_t columns = p < 4 ? I : H;
    const auto input = [&](std::size_t t, std::size_t b, std::size_t k) {
      if (p < 4) return load(type, x, (t * B + b) * I + k);
      return t == 0 ? load(type, h0, b * H + k) : load(type, y, ((t - 1) * B + b) * H + k);
    };
    for (std::size_t r = 0; r < H; ++r) {
      std::vector<double> sums(columns);
      double bias_sum = 0;
      for (std::size_t row = 0; row < T * B; ++row) {
        const double d = saved.gates[(row * 4 + p % 4) * H + r];
        bias_sum += d;
        for (std::size_t k = 0; k < columns; ++k) sums[k] += d * input(row / B, row % B, k);
      }
      for (std::size_t k = 0; k < columns; ++k) add(weight_at(p), r * columns + k, sums[k]);
      add(bias_at(p), r, bias_sum);
    }
  }
  // The workspace and the reserve may be used in between: nothing may rely on them afterwards.
  std::fill_n(static_cast<double*>(workspace), B * 4 * H, std::nan(""));
  *saved.done = kNothing;
}

}  // namespace emulation
