#pragma once

#include "kernels/recurrent_sequence/cell.h"

namespace carousel {

/// The gated recurrent unit: Cho et al. 2014, EMNLP, section 2.3, equations 5 to 8, with the reset
/// gate after the recurrent product and a bias inside it, as in cuDNN and PyTorch; z keeps the old
/// state:
///
///     r, z = σ(a_r), σ(a_z)
///     n    = tanh(x_n + r ∘ u_n)      x_n = W_in·x + b_in,  u_n = W_hn·ĥ + b_hn
///     h[t] = n + z ∘ (ĥ − n)
struct Gru {
  static constexpr CellInfo kInfo{.name = "gru",
                                  .module = "gru",
                                  .gates = 3,
                                  .gate_names = {"r", "z", "n"},
                                  .split = 1,
                                  .reads_h = true,
                                  .candidate = true};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    const auto r = Math::sigmoid(u.gate[0]), z = Math::sigmoid(u.gate[1]);
    const auto n = Math::tanh(u.gate[2] + r * u.recurrent[0]);
    u.gate[0] = r, u.gate[1] = z, u.gate[2] = n;
    u.after[0] = combined(u.kept(n), z, u.before[0]);
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto [r, z, n] = u.gate;
    const auto d_h = u.d_state[0], d_n = u.kept(d_h * (1 - z)) * (1 - n * n);
    u.gate[0] = d_n * u.recurrent[0] * (r * (1 - r));
    u.gate[1] = d_h * (u.before[0] - u.kept(n)) * (z * (1 - z));
    u.gate[2] = d_n;
    u.recurrent[0] = d_n * r;
    u.d_state[0] = d_h * z;
  }

  template <class R>
  [[gnu::always_inline]] static constexpr R combined(R n, R z, R h) {
    return n + z * (h - n);
  }
};

/// The same with the reset gate before the recurrent product, as Cho et al. wrote it:
///
///     n = tanh(a_n)      a_n = W_in·x + b_in + W_hn·(r ∘ ĥ) + b_hn
struct ResetBeforeGru {
  static constexpr CellInfo kInfo{.name = "gru_reset_before",
                                  .variant_of = "gru",
                                  .variant = "reset_before",
                                  .gates = 3,
                                  .gate_names = {"r", "z", "n"},
                                  .reads_h = true,
                                  .candidate = true,
                                  .phases = 2,
                                  .phase_begin = {0, 2}};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    u.gate[0] = Math::sigmoid(u.gate[0]), u.gate[1] = Math::sigmoid(u.gate[1]);
    u.operand = u.gate[0] * u.before[0];
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<1>, U& u) {
    u.gate[2] = Math::tanh(u.gate[2]);
    u.after[0] = Gru::combined(u.kept(u.gate[2]), u.gate[1], u.before[0]);
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<1>, U& u) {
    const auto z = u.gate[1], n = u.gate[2], d_h = u.d_state[0];
    u.gate[1] = d_h * (u.before[0] - u.kept(n)) * (z * (1 - z));
    u.gate[2] = u.kept(d_h * (1 - z)) * (1 - n * n);
    u.d_state[0] = d_h * z;
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto r = u.gate[0];
    u.gate[0] = u.operand * u.before[0] * (r * (1 - r));
    u.d_state[0] += u.operand * r;
  }
};

}  // namespace carousel
