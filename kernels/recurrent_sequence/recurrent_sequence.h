#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"
#include "kernels/recurrent_sequence/cell.h"

namespace carousel {

/// Of every cell in the table.
inline constexpr Tolerances kRecurrentForwardTolerance{
    .f32 = {.absolute = 8e-7, .relative = 8e-7, .worst = 0.41},
    .bf16 = {.absolute = 1e-2, .relative = 1e-2, .worst = 0.5}};
inline constexpr Tolerances kRecurrentBackwardTolerance{
    .f32 = {.absolute = 4e-6, .relative = 4e-6, .worst = 0.67},
    .bf16 = {.absolute = 5e-2, .relative = 2e-2, .worst = 0.71}};

/// One view per float state of a cell, in the order of CellInfo::state_names after h.
template <class T, int R>
using StateViews = std::array<View<T, R>, kMostStates - 1>;

/// Which steps of each row there are: begin ≤ t < end, clamped to 0 … T; 0 and T where absent.
struct RowRangeView {
  View<const std::int32_t, 1> begin{};  ///< [B]
  View<const std::int32_t, 1> end{};    ///< [B]
  constexpr bool present() const { return begin.present() || end.present(); }
};

/// One layer of a recurrent cell of G gates over a whole sequence, for t = 0, 1, … T−1:
///
///     ĥ, ĉ …  = the states of step t−1      (initial at a row's first step; 0 where reset[t])
///     a       = W_ih·x[t] + b_ih + W_hh·ĥ + b_hh
///     h[t], c[t] … = the cell's equations, cells/<cell>.h, of a, ĥ, ĉ …
///
/// The G·H rows of the weights and columns of `gates` are H each of the cell's gates, in the order
/// of CellInfo::gate_names, as in PyTorch. A split gate takes W_ih·x + b_ih and W_hh·ĥ + b_hh
/// apart; a gate of a later phase multiplies what the phase before it has computed instead of ĥ.
/// T, B, I and H are any numbers, 0 included.
///
/// Values   NaN and infinity follow the formula, row by row: a row that resets forgets them too.
///          Outside a row's range, gates, saved values and states are 0, x is not looked at, and
///          the state passes through unchanged: a row of no steps ends as it begins.
/// Errors   ShapeError if extents disagree, one bias comes without the other, or scratch is too
///          small. ConfigError for double on CUDA.
/// Accuracy Within kRecurrentForwardTolerance of the oracle for T ≤ 64, |W| ≤ 1/√H, inputs and
///          states of about 1, without tf32. Sums are float; a bf16 product x·W_ih is rounded to
///          bf16 once, in `gates`, before the recurrent part is added to it in float; float states
///          are never rounded, h is fed back as stored. Repeats bit for bit.
/// Memory   Writes the input part of all steps into `gates` by one product over T·B rows, and
///          activates it in place. A step reads W_hh, the states before and gates[t], writes
///          gates[t] and the states, and passes G·H floats a row through scratch.
/// Source   cells/<cell>.h.
template <class T>
struct RecurrentSequenceForward {
  CellKind cell = nullptr;
  View<const T, 3> x;                            ///< [T, B, I]
  View<const T, 2> weight_ih;                    ///< [G·H, I]
  View<const T, 2> weight_hh{};                  ///< [G·H, H] or absent: zero
  View<const Accumulator<T>, 1> bias_ih{};       ///< [G·H] or absent, both
  View<const Accumulator<T>, 1> bias_hh{};       ///< [G·H] or absent, both
  View<const Accumulator<T>, 2> parameter{};     ///< [CellInfo::parameters, H], absent if that is 0
  View<const T, 2> h0{};                         ///< [B, H] or absent: zero
  StateViews<const Accumulator<T>, 2> state0{};  ///< [B, H] each or absent: zero
  View<const std::int32_t, 2> reset{};    ///< [T, B] or absent; not 0: a sequence starts here
  RowRangeView rows{};                    ///< absent: all rows have T steps
  View<T, 3> h;                           ///< [T, B, H] out
  StateViews<Accumulator<T>, 3> state{};  ///< [T, B, H] out, each
  View<T, 3> gates;                       ///< [T, B, G·H] out: activations
  View<T, 4> saved{};                     ///< [CellInfo::saved(), T, B, H] out, absent if that is 0
  View<T, 2> h_last{};                    ///< [B, H] out or absent: the state at each row's end
  StateViews<Accumulator<T>, 2> state_last{};  ///< [B, H] out or absent, each
  View<std::byte, 1> scratch{};                ///< scratch_bytes(device, op), aligned to 256
  bool tf32 = false;                           ///< float on CUDA: products round inputs to tf32

  void check() const;
  void run(const Cpu& device) const;
  void run(const Cuda& device) const;
  std::size_t scratch_bytes(const Cpu& device) const;  ///< with as many threads as there are now
  std::size_t scratch_bytes(const Cuda& device) const;
};

/// The gradients of all inputs by back-propagation through time, for t = T−1, … 0, given the
/// gradients of every h[t] and of the final state: with δa[t] those of the pre-activations (δu[t],
/// where the recurrent part's differ) and δĥ what reaches ĥ past the product,
///
///     δh[t]  = d_h[t] + W_hhᵀ·δu[t+1] + δĥ[t+1]       (at a row's last step: d_h[t] + d_h_last)
///     d_x[t] = W_ihᵀ·δa[t]              d_weight_ih = Σ_t δa[t]·x[t]ᵀ
///     d_bias_ih = Σ_t δa[t]             d_weight_hh = Σ_t δu[t]·ĥᵀ
///     d_bias_hh = Σ_t δu[t]
///
/// and d_h0, d_state0 are what flows out of a row's first step. Nothing flows from a row that
/// resets into the step before it. A row of no steps hands on the gradients of its final state.
///
/// Values   As the formula; an absent gradient going in is zero, an absent one going out is not
///          wanted. All of them are written when T·B = 0. Outside a row's range gradients are 0,
///          and what x, d_h and the rest hold there has no influence.
/// Errors   As for the forward pass.
/// Accuracy Within kRecurrentBackwardTolerance of the oracle, forward pass included, under the same
///          conditions, for gradients of about 1 and sums over T·B ≤ 320 rows. Gradients of states
///          are carried in float; δa and δu are rounded once, to T, and all products read that.
/// Memory   A step reads gates[t], the states after and before, d_h[t] and W_hh, and writes δa[t]
///          over gates[t] and δu[t] over saved. Then one product over all T·B rows for each weight
///          and for d_x, and one column sum. Only where `reset` or `rows` is given is ĥ written
///          out, [T, B, H] in scratch, and only with `rows` x without its padding.
template <class T>
struct RecurrentSequenceBackward {
  CellKind cell = nullptr;
  View<const T, 3> d_h{};       ///< [T, B, H] or absent
  View<const T, 2> d_h_last{};  ///< [B, H] or absent: of the final state, besides d_h
  StateViews<const Accumulator<T>, 2> d_state_last{};  ///< [B, H] or absent, each
  View<const T, 3> x;                                  ///< these as given to the forward pass …
  View<const T, 2> weight_ih;
  View<const T, 2> weight_hh{};
  View<const Accumulator<T>, 2> parameter{};
  View<const T, 2> h0{};
  StateViews<const Accumulator<T>, 2> state0{};
  View<const std::int32_t, 2> reset{};
  RowRangeView rows{};
  View<const T, 3> h;  ///< … and these as it left them
  StateViews<const Accumulator<T>, 3> state{};
  View<T, 3> gates;      ///< [T, B, G·H] in: activations; out: δa, in place
  View<T, 4> saved{};    ///< in: as the forward pass left it; out: δu of the split gates first
  Gradient<T, 3> d_x{};  ///< [T, B, I] out
  Gradient<Accumulator<T>, 2> d_weight_ih{};  ///< [G·H, I] out
  Gradient<Accumulator<T>, 2> d_weight_hh{};  ///< [G·H, H] out
  Gradient<Accumulator<T>, 1> d_bias_ih{};    ///< [G·H] out
  Gradient<Accumulator<T>, 1> d_bias_hh{};    ///< [G·H] out
  Gradient<Accumulator<T>, 2> d_parameter{};  ///< [CellInfo::parameters, H] out
  Gradient<T, 2> d_h0{};                      ///< [B, H] out
  std::array<Gradient<Accumulator<T>, 2>, kMostStates - 1> d_state0{};  ///< [B, H] out, each
  View<std::byte, 1> scratch{};  ///< scratch_bytes(device, op), aligned to 256
  bool tf32 = false;             ///< float on CUDA: products round inputs to tf32

  void check() const;
  void run(const Cpu& device) const;
  void run(const Cuda& device) const;
  std::size_t scratch_bytes(const Cpu& device) const;
  std::size_t scratch_bytes(const Cuda& device) const;
};

}  // namespace carousel
