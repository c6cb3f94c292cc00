#pragma once

#include "kernels/recurrent_sequence/cell.h"

namespace carousel {

/// The LSTM with exponential gating, normalizer n and stabilizer m: Beck et al. 2024, "xLSTM",
/// arXiv:2405.04517, equations 8 to 17, with f = σ; its recurrent product is block-diagonal, one
/// block per head:
///
///     m[t] = max(log σ(a_f) + m[t−1], a_i)
///     i = exp(a_i − m[t])                 f = σ(a_f) · exp(m[t−1] − m[t])
///     c[t] = f ∘ c[t−1] + i ∘ tanh(a_z)   n[t] = f ∘ n[t−1] + i
///     h[t] = σ(a_o) ∘ c[t] / n[t]
///
/// h does not depend on m, which only keeps c and n in range: backward, m is a constant, and neither
/// gives nor takes a gradient. The gates kept are i, σ(a_f), tanh(a_z) and σ(a_o).
struct Slstm {
  static constexpr CellInfo kInfo{
      .name = "slstm",
      .gates = 4,
      .gate_names = {"i", "f", "z", "o"},
      .states = 4,
      .state_names = {"hidden state", "cell state", "normalizer", "stabilizer"},
      .candidate = true};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    const auto m = larger(Math::log_sigmoid(u.gate[1]) + u.before[3], u.gate[0]);
    const auto i = Math::exp(u.gate[0] - m), z = Math::tanh(u.gate[2]);
    const auto o = Math::sigmoid(u.gate[3]), f = Math::sigmoid(u.gate[1]);
    u.gate[0] = i, u.gate[1] = f, u.gate[2] = z, u.gate[3] = o;
    u.after[3] = m;
    const auto kept = decayed<Math>(u);
    u.after[1] = kept * u.before[1] + i * u.kept(z);
    u.after[2] = kept * u.before[2] + i;
    u.after[0] = o * (u.after[1] / u.after[2]);
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto [i, f, z, o] = u.gate;
    const auto kept = decayed<Math>(u);
    const auto d_h = u.d_state[0], ratio = u.after[1] / u.after[2];
    const auto d_ratio = d_h * o / u.after[2];
    const auto d_c = u.d_state[1] + d_ratio, d_n = u.d_state[2] - d_ratio * ratio;
    u.gate[0] = (d_c * u.kept(z) + d_n) * i;
    u.gate[1] = (d_c * u.before[1] + d_n * u.before[2]) * kept * (1 - f);
    u.gate[2] = u.kept(d_c * i) * (1 - z * z);
    u.gate[3] = d_h * ratio * (o * (1 - o));
    u.d_state[1] = d_c * kept;
    u.d_state[2] = d_n * kept;
    u.d_state[3] = 0;
  }

 private:
  /// NaN of the first stays.
  template <class R>
  [[gnu::always_inline]] static constexpr R larger(R a, R b) {
    return a < b ? b : a;
  }
  /// What is left of the state before: at most 1. The bound keeps 0 · ∞ away where f is 0.
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr auto decayed(const U& u) {
    const auto rise = u.before[3] - u.after[3];
    return u.gate[1] * Math::exp(rise > 80 ? 80 : rise);
  }
};

}  // namespace carousel
