#pragma once

#include "kernels/recurrent_sequence/cell.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"

namespace carousel::test {

/// A cell that has everything a cell may have, for tests alone: two phases with a product between
/// them, a split gate, parameters per unit, a float state with a candidate, which may be bounded, and
/// a pointwise path from ĥ.
///
///     r, z = σ(a_r + p_r∘ĉ), σ(a_z + p_z∘ĉ)
///     n = tanh(x_n + z ∘ W_n·(r∘ĥ))
///     c = ĉ + z∘(n − ĉ)          h = z∘ĥ + (1 − z)∘tanh c
struct TwoPhase {
  static constexpr CellInfo kInfo{.name = "two-phase",
                                  .gates = 3,
                                  .gate_names = {"r", "z", "n"},
                                  .states = 2,
                                  .state_names = {"hidden state", "cell state"},
                                  .split = 1,
                                  .reads_h = true,
                                  .candidate = true,
                                  .gates_memory = true,
                                  .parameters = 2,
                                  .phases = 2,
                                  .phase_begin = {0, 2}};

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<0>, U& u) {
    const auto r = Math::sigmoid(u.gate[0] + u.parameter[0] * u.before[1]);
    u.gate[1] = Math::sigmoid(u.gate[1] + u.parameter[1] * u.before[1]);
    u.gate[0] = r;
    u.operand = r * u.before[0];
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void forward(CellPhase<1>, U& u) {
    const auto z = u.gate[1], n = Math::tanh(u.gate[2] + z * u.recurrent[0]);
    u.gate[2] = n;
    u.after[1] = memory(u);
    u.after[0] = z * u.before[0] + (1 - z) * Math::tanh(u.after[1]);
  }

  template <class U>
  [[gnu::always_inline]] static constexpr void restore(U& u) {
    u.after[1] = memory(u);
  }

  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<1>, U& u) {
    const auto z = u.gate[1], n = u.gate[2], tanh_c = Math::tanh(u.after[1]);
    const auto d_h = u.d_state[0];
    const auto d_c =
        (u.d_state[1] + d_h * (1 - z) * (1 - tanh_c * tanh_c)) * u.clip_slope(u.after[1]);
    const auto d_n = u.kept(d_c * z) * (1 - n * n);
    const auto d_z =
        d_h * (u.before[0] - tanh_c) + d_c * (u.kept(n) - u.before[1]) + d_n * u.recurrent[0];
    const auto d_a = d_z * (z * (1 - z));
    u.gate[1] = d_a;
    u.gate[2] = d_n;
    u.recurrent[0] = d_n * z;
    u.d_parameter[0] = 0;
    u.d_parameter[1] = d_a * u.before[1];
    u.d_state[0] = d_h * z;
    u.d_state[1] = d_c * (1 - z) + d_a * u.parameter[1];
  }
  template <class Math, class U>
  [[gnu::always_inline]] static constexpr void backward(CellPhase<0>, U& u) {
    const auto r = u.gate[0], d_a = u.operand * u.before[0] * (r * (1 - r));
    u.gate[0] = d_a;
    u.d_parameter[0] = d_a * u.before[1];
    u.d_parameter[1] = 0;
    u.d_state[0] += u.operand * r;
    u.d_state[1] += d_a * u.parameter[0];
  }

 private:
  template <class U>
  [[gnu::always_inline]] static constexpr auto memory(const U& u) {
    return u.clipped(u.before[1] + u.gate[1] * (u.kept(u.gate[2]) - u.before[1]));
  }
};

/// carousel::run() for a cell that the table does not hold.
template <class Op>
void run_two_phase(const Device& device, const Op& op);
#if CAROUSEL_CUDA
template <class Op>
void run_two_phase_on_cuda(const Cuda& device, const Op& op);
#endif

}  // namespace carousel::test
