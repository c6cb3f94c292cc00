#pragma once

#include "kernels/recurrent_sequence/cell.h"

namespace carousel {

/// Activations φ and their slopes, of which the value is given.
struct Tanh {
  static constexpr std::string_view kName = "tanh", kIndependentName = "indrnn_tanh";
  template <class Math, class R>
  [[gnu::always_inline]] static constexpr R value(R a) {
    return Math::tanh(a);
  }
  template <class R>
  [[gnu::always_inline]] static constexpr R slope(R h) {
    return 1 - h * h;
  }
};
/// NaN stays NaN.
struct Relu {
  static constexpr std::string_view kName = "relu", kIndependentName = "indrnn";
  template <class Math, class R>
  [[gnu::always_inline]] static constexpr R value(R a) {
    return a < 0 ? R{0} : a;
  }
  template <class R>
  [[gnu::always_inline]] static constexpr R slope(R h) {
    return h > 0 ? R{1} : h * 0;
  }
};
struct Linear {
  static constexpr std::string_view kName = "linear", kIndependentName = "indrnn_linear";
  template <class Math, class R>
  [[gnu::always_inline]] static constexpr R value(R a) {
    return a;
  }
  template <class R>
  [[gnu::always_inline]] static constexpr R slope(R) {
    return 1;
  }
};

/// The simple recurrent network h[t] = φ(a): Elman 1990, Cognitive Science 14(2), 179–211. Its one
/// gate is h itself, before it is rounded.
template <class Activation>
struct Elman {
  static constexpr CellInfo kInfo{
      .name = Activation::kName, .module = "rnn", .gates = 1, .gate_names = {"h"}};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    u.gate[0] = u.after[0] = Activation::template value<Math>(u.gate[0]);
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    u.gate[0] = u.d_state[0] * Activation::slope(u.gate[0]);
  }
};

/// The independently recurrent network, each unit of which sees no other's state but its own: Li, Li,
/// Cook, Zhu & Gao 2018, CVPR, equation 2:
///
///     h[t] = φ(W_ih·x[t] + b_ih + u ∘ h[t−1])
template <class Activation>
struct IndRnn {
  static constexpr CellInfo kInfo{.name = Activation::kIndependentName,
                                  .gates = 1,
                                  .gate_names = {"h"},
                                  .reads_h = true,
                                  .multiplies = false,
                                  .parameters = 1,
                                  .parameter_names = {"u"}};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    u.gate[0] = u.after[0] =
        Activation::template value<Math>(u.gate[0] + u.parameter[0] * u.before[0]);
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto d_a = u.d_state[0] * Activation::slope(u.gate[0]);
    u.gate[0] = d_a;
    u.d_parameter[0] = d_a * u.before[0];
    u.d_state[0] = d_a * u.parameter[0];
  }
};

}  // namespace carousel
