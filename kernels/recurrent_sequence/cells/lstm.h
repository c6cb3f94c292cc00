#pragma once

#include "kernels/recurrent_sequence/cell.h"

namespace carousel {

/// Long short-term memory: Hochreiter & Schmidhuber 1997, Neural Computation 9(8), 1735–1780,
/// section 4; with the forget gate of Gers, Schmidhuber & Cummins 2000, Neural Computation 12(10),
/// 2451–2471, equations 2.1 to 2.5:
///
///     i, f, g, o = σ(a_i), σ(a_f), tanh(a_g), σ(a_o)
///     c[t] = f ∘ c[t−1] + i ∘ g            (the constant error carousel)
///     h[t] = o ∘ tanh c[t]
struct Lstm {
  static constexpr CellInfo kInfo{.name = "lstm",
                                  .module = "lstm",
                                  .gates = 4,
                                  .gate_names = {"i", "f", "g", "o"},
                                  .states = 2,
                                  .state_names = {"hidden state", "cell state"}};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    const auto i = Math::sigmoid(u.gate[0]), f = Math::sigmoid(u.gate[1]);
    const auto g = Math::tanh(u.gate[2]), o = Math::sigmoid(u.gate[3]);
    u.gate[0] = i, u.gate[1] = f, u.gate[2] = g, u.gate[3] = o;
    u.after[1] = f * u.before[1] + i * g;
    u.after[0] = o * Math::tanh(u.after[1]);
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto [i, f, g, o] = u.gate;
    const auto tanh_c = Math::tanh(u.after[1]);
    const auto d_h = u.d_state[0];
    const auto d_c = d_h * o * (1 - tanh_c * tanh_c) + u.d_state[1];
    u.gate[0] = d_c * g * (i * (1 - i));
    u.gate[1] = d_c * u.before[1] * (f * (1 - f));
    u.gate[2] = d_c * i * (1 - g * g);
    u.gate[3] = d_h * tanh_c * (o * (1 - o));
    u.d_state[1] = d_c * f;
  }
};

}  // namespace carousel
