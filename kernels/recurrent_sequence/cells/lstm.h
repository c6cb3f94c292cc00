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
                                  .state_names = {"hidden state", "cell state"},
                                  .candidate = true,
                                  .gates_memory = true};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    const auto i = Math::sigmoid(u.gate[0]), f = Math::sigmoid(u.gate[1]);
    const auto g = Math::tanh(u.gate[2]), o = Math::sigmoid(u.gate[3]);
    u.gate[0] = i, u.gate[1] = f, u.gate[2] = g, u.gate[3] = o;
    u.after[1] = u.clipped(f * u.before[1] + i * u.kept(g));
    u.after[0] = o * Math::tanh(u.after[1]);
  }

  template <class U>
  [[gnu::always_inline]] static constexpr void restore(U& u) {
    u.after[1] = u.clipped(u.gate[1] * u.before[1] + u.gate[0] * u.kept(u.gate[2]));
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto [i, f, g, o] = u.gate;
    const auto tanh_c = Math::tanh(u.after[1]);
    const auto d_h = u.d_state[0];
    const auto d_c = (d_h * o * (1 - tanh_c * tanh_c) + u.d_state[1]) * u.clip_slope(u.after[1]);
    u.gate[0] = d_c * u.kept(g) * (i * (1 - i));
    u.gate[1] = d_c * u.before[1] * (f * (1 - f));
    u.gate[2] = u.kept(d_c * i) * (1 - g * g);
    u.gate[3] = d_h * tanh_c * (o * (1 - o));
    u.d_state[1] = d_c * f;
  }
};

/// With peephole connections p_i, p_f, p_o, by which the gates see the cell state: Gers & Schmidhuber
/// 2000, IJCNN, section 3; as written by Graves 2013, arXiv:1308.0850, equations 7 to 11:
///
///     i, f = σ(a_i + p_i ∘ c[t−1]), σ(a_f + p_f ∘ c[t−1])      o = σ(a_o + p_o ∘ c[t])
struct PeepholeLstm {
  static constexpr CellInfo kInfo{.name = "lstm_peephole",
                                  .variant_of = "lstm",
                                  .variant = "peephole",
                                  .gates = 4,
                                  .gate_names = {"i", "f", "g", "o"},
                                  .states = 2,
                                  .state_names = {"hidden state", "cell state"},
                                  .candidate = true,
                                  .gates_memory = true,
                                  .parameters = 3,
                                  .parameter_names = {"peephole i", "peephole f", "peephole o"}};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    const auto i = Math::sigmoid(u.gate[0] + u.parameter[0] * u.before[1]);
    const auto f = Math::sigmoid(u.gate[1] + u.parameter[1] * u.before[1]);
    const auto g = Math::tanh(u.gate[2]);
    u.gate[0] = i, u.gate[1] = f, u.gate[2] = g;
    u.after[1] = u.clipped(f * u.before[1] + i * u.kept(g));
    u.gate[3] = Math::sigmoid(u.gate[3] + u.parameter[2] * u.after[1]);
    u.after[0] = u.gate[3] * Math::tanh(u.after[1]);
  }

  template <class U>
  [[gnu::always_inline]] static constexpr void restore(U& u) {
    Lstm::restore(u);
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto [i, f, g, o] = u.gate;
    const auto tanh_c = Math::tanh(u.after[1]);
    const auto d_h = u.d_state[0], d_o = d_h * tanh_c * (o * (1 - o));
    const auto d_c = (d_h * o * (1 - tanh_c * tanh_c) + d_o * u.parameter[2] + u.d_state[1]) *
                     u.clip_slope(u.after[1]);
    const auto d_i = d_c * u.kept(g) * (i * (1 - i)), d_f = d_c * u.before[1] * (f * (1 - f));
    u.gate[0] = d_i, u.gate[1] = d_f, u.gate[3] = d_o;
    u.gate[2] = u.kept(d_c * i) * (1 - g * g);
    u.d_parameter[0] = d_i * u.before[1];
    u.d_parameter[1] = d_f * u.before[1];
    u.d_parameter[2] = d_o * u.after[1];
    u.d_state[1] = d_c * f + d_i * u.parameter[0] + d_f * u.parameter[1];
  }
};

/// With layer normalization, of both products (`gain` of the op) and of the cell state on its way to
/// the output: Ba, Kiros & Hinton 2016, arXiv:1607.06450, equations 20 to 22:
///
///     h[t] = o ∘ tanh(gain ∘ (c[t] − mean) / deviation + bias)
struct LayerNormLstm {
  static constexpr CellInfo kInfo{.name = "lstm_layer_norm",
                                  .variant_of = "lstm",
                                  .variant = "layer_norm",
                                  .gates = 4,
                                  .gate_names = {"i", "f", "g", "o"},
                                  .states = 2,
                                  .state_names = {"hidden state", "cell state"},
                                  .candidate = true,
                                  .gates_memory = true,
                                  .parameters = 2,
                                  .parameter_names = {"gain c", "bias c"},
                                  .normalizes = true,
                                  .phases = 2,
                                  .phase_begin = {0, 4}};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    const auto i = Math::sigmoid(u.gate[0]), f = Math::sigmoid(u.gate[1]);
    const auto g = Math::tanh(u.gate[2]), o = Math::sigmoid(u.gate[3]);
    u.gate[0] = i, u.gate[1] = f, u.gate[2] = g, u.gate[3] = o;
    u.after[1] = u.operand = u.clipped(f * u.before[1] + i * u.kept(g));
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<1>, U& u) {
    u.after[0] = u.gate[3] * Math::tanh(u.parameter[0] * u.operand + u.parameter[1]);
  }

  template <class U>
  [[gnu::always_inline]] static constexpr void restore(U& u) {
    Lstm::restore(u);
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<1>, U& u) {
    const auto o = u.gate[3], d_h = u.d_state[0];
    const auto y = Math::tanh(u.parameter[0] * u.operand + u.parameter[1]);
    const auto d_y = d_h * o * (1 - y * y);
    u.gate[3] = d_h * y * (o * (1 - o));
    u.d_parameter[0] = d_y * u.operand;
    u.d_parameter[1] = d_y;
    u.operand = d_y * u.parameter[0];
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto i = u.gate[0], f = u.gate[1], g = u.gate[2];
    const auto d_c = (u.d_state[1] + u.operand) * u.clip_slope(u.after[1]);
    u.gate[0] = d_c * u.kept(g) * (i * (1 - i));
    u.gate[1] = d_c * u.before[1] * (f * (1 - f));
    u.gate[2] = u.kept(d_c * i) * (1 - g * g);
    u.d_parameter[0] = u.d_parameter[1] = 0;
    u.d_state[1] = d_c * f;
  }
};

}  // namespace carousel
