#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

/// What an LSTM layer is given; an empty vector is an absent argument. Layouts as in the contract.
struct Lstm {
  std::size_t T = 0, B = 0, I = 0, H = 0;
  std::vector<double> x{}, weight_ih{}, weight_hh{}, bias_ih{}, bias_hh{}, h0{}, c0{};
  std::vector<std::int32_t> reset{};

  bool resets(std::size_t t, std::size_t b) const {
    return !reset.empty() && reset[t * B + b] != 0;
  }
};

struct LstmStates {
  std::vector<double> h, c, gates;
};

struct LstmOutputGradients {
  std::vector<double> d_h, d_h_last, d_c_last;
};

struct LstmGradients {
  std::vector<double> d_x, d_weight_ih, d_weight_hh, d_bias, d_h0, d_c0;
  std::vector<double> d_gates;
};

inline double logistic(double a) { return 1 / (1 + std::exp(-a)); }

/// h or c as step t of row b finds it.
inline std::vector<double> state_before(const Lstm& p, const std::vector<double>& sequence,
                                        const std::vector<double>& initial, std::size_t t,
                                        std::size_t b) {
  std::vector<double> state(p.H, 0.0);
  if (p.resets(t, b) || (t == 0 && initial.empty())) return state;
  for (std::size_t j = 0; j < p.H; ++j) {
    state[j] = t == 0 ? initial[b * p.H + j] : sequence[((t - 1) * p.B + b) * p.H + j];
  }
  return state;
}

/// The equations of Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber &
/// Cummins 2000, one sequence of the batch after the other.
inline LstmStates lstm_forward(const Lstm& p) {
  LstmStates s{.h = std::vector<double>(p.T * p.B * p.H),
               .c = std::vector<double>(p.T * p.B * p.H),
               .gates = std::vector<double>(p.T * p.B * 4 * p.H)};
  for (std::size_t b = 0; b < p.B; ++b) {
    for (std::size_t t = 0; t < p.T; ++t) {
      const std::vector<double> h_before = state_before(p, s.h, p.h0, t, b);
      const std::vector<double> c_before = state_before(p, s.c, p.c0, t, b);
      std::vector<double> a(4 * p.H);
      for (std::size_t r = 0; r < 4 * p.H; ++r) {
        double sum = 0;
        for (std::size_t k = 0; k < p.I; ++k) {
          sum += p.weight_ih[r * p.I + k] * p.x[(t * p.B + b) * p.I + k];
        }
        for (std::size_t k = 0; k < p.H; ++k) sum += p.weight_hh[r * p.H + k] * h_before[k];
        if (!p.bias_ih.empty()) sum += p.bias_ih[r] + p.bias_hh[r];
        a[r] = sum;
      }
      for (std::size_t j = 0; j < p.H; ++j) {
        const double i = logistic(a[j]), f = logistic(a[p.H + j]);
        const double g = std::tanh(a[2 * p.H + j]), o = logistic(a[3 * p.H + j]);
        const std::size_t n = (t * p.B + b) * p.H + j;
        s.c[n] = f * c_before[j] + i * g;
        s.h[n] = o * std::tanh(s.c[n]);
        double* gates = &s.gates[(t * p.B + b) * 4 * p.H];
        gates[j] = i, gates[p.H + j] = f, gates[2 * p.H + j] = g, gates[3 * p.H + j] = o;
      }
    }
  }
  return s;
}

/// Back-propagation through time, one sequence of the batch after the other, from its last step.
inline LstmGradients lstm_backward(const Lstm& p, const LstmStates& s,
                                   const LstmOutputGradients& out) {
  LstmGradients d{.d_x = std::vector<double>(p.T * p.B * p.I),
                  .d_weight_ih = std::vector<double>(4 * p.H * p.I),
                  .d_weight_hh = std::vector<double>(4 * p.H * p.H),
                  .d_bias = std::vector<double>(4 * p.H),
                  .d_h0 = std::vector<double>(p.B * p.H),
                  .d_c0 = std::vector<double>(p.B * p.H),
                  .d_gates = std::vector<double>(p.T * p.B * 4 * p.H)};
  for (std::size_t b = 0; b < p.B; ++b) {
    // The gradients of the state that leaves the step in hand, over all ways it is used later.
    std::vector<double> d_h(p.H, 0.0), d_c(p.H, 0.0);
    for (std::size_t j = 0; j < p.H; ++j) {
      if (!out.d_h_last.empty()) d_h[j] = out.d_h_last[b * p.H + j];
      if (!out.d_c_last.empty()) d_c[j] = out.d_c_last[b * p.H + j];
    }
    for (std::size_t t = p.T; t-- > 0;) {
      const std::vector<double> h_before = state_before(p, s.h, p.h0, t, b);
      const std::vector<double> c_before = state_before(p, s.c, p.c0, t, b);
      std::vector<double> d_a(4 * p.H), d_h_before(p.H, 0.0), d_c_before(p.H);
      for (std::size_t j = 0; j < p.H; ++j) {
        const std::size_t n = (t * p.B + b) * p.H + j;
        const double* gates = &s.gates[(t * p.B + b) * 4 * p.H];
        const double i = gates[j], f = gates[p.H + j], g = gates[2 * p.H + j];
        const double o = gates[3 * p.H + j], tanh_c = std::tanh(s.c[n]);
        if (!out.d_h.empty()) d_h[j] += out.d_h[n];
        d_c[j] += d_h[j] * o * (1 - tanh_c * tanh_c);
        d_a[j] = d_c[j] * g * i * (1 - i);
        d_a[p.H + j] = d_c[j] * c_before[j] * f * (1 - f);
        d_a[2 * p.H + j] = d_c[j] * i * (1 - g * g);
        d_a[3 * p.H + j] = d_h[j] * tanh_c * o * (1 - o);
        d_c_before[j] = d_c[j] * f;
      }
      for (std::size_t r = 0; r < 4 * p.H; ++r) {
        d.d_gates[(t * p.B + b) * 4 * p.H + r] = d_a[r];
        d.d_bias[r] += d_a[r];
        for (std::size_t k = 0; k < p.I; ++k) {
          d.d_weight_ih[r * p.I + k] += d_a[r] * p.x[(t * p.B + b) * p.I + k];
          d.d_x[(t * p.B + b) * p.I + k] += d_a[r] * p.weight_ih[r * p.I + k];
        }
        for (std::size_t k = 0; k < p.H; ++k) {
          d.d_weight_hh[r * p.H + k] += d_a[r] * h_before[k];
          d_h_before[k] += d_a[r] * p.weight_hh[r * p.H + k];
        }
      }
      const bool cut = p.resets(t, b);
      for (std::size_t j = 0; j < p.H; ++j) {
        d_h[j] = cut ? 0.0 : d_h_before[j];
        d_c[j] = cut ? 0.0 : d_c_before[j];
      }
    }
    for (std::size_t j = 0; j < p.H; ++j) {
      d.d_h0[b * p.H + j] = d_h[j];
      d.d_c0[b * p.H + j] = d_c[j];
    }
  }
  return d;
}

}  // namespace carousel::reference
