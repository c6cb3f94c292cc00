#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"
#include "kernels/recurrent_sequence/cell.h"
#include "kernels/recurrent_sequence/options.h"

namespace carousel {

/// Of every cell in the table.
inline constexpr Tolerances kRecurrentForwardTolerance{
    .f32 = {.absolute = 8e-7, .relative = 8e-7, .worst = 0.41},
    .bf16 = {.absolute = 1e-2, .relative = 1e-2, .worst = 0.5}};
inline constexpr Tolerances kRecurrentBackwardTolerance{
    .f32 = {.absolute = 4e-6, .relative = 4e-6, .worst = 0.72},
    .bf16 = {.absolute = 5e-2, .relative = 2e-2, .worst = 0.71}};
/// With `gain`, or of a cell with a normalized phase.
inline constexpr Tolerances kNormalizedForwardTolerance{
    .f32 = {.absolute = 5e-6, .relative = 5e-6, .worst = 0.29},
    .bf16 = {.absolute = 5e-2, .relative = 5e-2, .worst = 0.4}};
inline constexpr Tolerances kNormalizedBackwardTolerance{
    .f32 = {.absolute = 4e-5, .relative = 4e-5, .worst = 0.38},
    .bf16 = {.absolute = 0.25, .relative = 0.1, .worst = 0.75}};

/// One view per float state of a cell, in the order of CellInfo::state_names after h.
template <class T, int R>
using StateViews = std::array<View<T, R>, kMostStates - 1>;
/// One view per state, h first, as float.
template <class T>
using StartViews = std::array<View<T, 1>, kMostStates>;

/// Which steps of each row there are: begin ≤ t < end, clamped to 0 … T; 0 and T where absent.
struct RowRangeView {
  View<const std::int32_t, 1> begin{};  ///< [B]
  View<const std::int32_t, 1> end{};    ///< [B]
  constexpr bool present() const { return begin.present() || end.present(); }
};

/// One layer of a recurrent cell of G gates over a whole sequence, for t = 0, 1, … T−1, or from T−1
/// down to 0 if `reverse` ("the step before" t is then t + 1):
///
///     ĥ, ĉ …  = the states of the step before   (h0, state0 at a row's first step; `start` where a
///               reset cuts, where carried[row] is 0, and where h0 and state0 are absent)
///     a       = W_ih·x[t] + b_ih + W_hh·ĥ + b_hh
///     h[t], c[t] … = the cell's equations, cells/<cell>.h, of a, ĥ, ĉ …
///
/// reset[t, row] ≠ 0, t in the row's range, cuts between steps t − 1 and t, in both directions. The G·H rows of the weights
/// and columns of `gates` are H each of the cell's gates, in the order of CellInfo::gate_names, as in
/// PyTorch. A split gate takes W_ih·x + b_ih and W_hh·ĥ + b_hh apart; a gate of a later phase
/// multiplies what the phase before it has computed instead of ĥ. T, B, I and H are any numbers, 0
/// included.
///
/// Options, each of which the whole time loop knows:
///   weight_hr  h[t] = W_hr·m[t], rounded to T, where m is what the cell calls h, stored as T: h has
///              P units, the cell H. Sak, Senior & Beaufays 2014, arXiv:1402.1128, equation 5. For
///              cells that do not read h pointwise (CellInfo::reads_h).
///   heads      A W_hh of [G·H, P/heads] is block-diagonal: units of one head see that head's h only.
///              The count of heads divides H and P; P = H for more than one. For cells of one phase.
///   gain       W_ih·x and W_hh·ĥ are normalized over their G·H columns before the bias is added:
///              gain ∘ (v − mean) / √(variance + 1e-5). Ba, Kiros & Hinton 2016, arXiv:1607.06450,
///              section 3.1. Where there is no ĥ (no h0, no start) the second part is 0. For cells whose
///              W_hh serves one phase.
///   start      What a sequence starts from: learnt initial states.
///   options    see RecurrentOptions. Zoneout of h needs P = H, `variational` a W_hh; zoneout of the cell
///              state and cell_clip CellInfo::gates_memory, recurrent dropout
///              CellInfo::candidate.
///
/// Values   NaN and infinity follow the formula, row by row: a row that resets forgets them too.
///          Outside a row's range, gates, saved values and states are 0, x is not looked at, and
///          the state passes through unchanged: a row of no steps ends as it begins.
/// Errors   ShapeError if extents disagree, one bias comes without the other (a cell without W_hh has
///          bias_ih alone), or scratch is too small. ConfigError for double on CUDA, for an option that
///          the cell does not have, and for a probability outside [0, 1] or a bound below 0.
/// Accuracy Within kRecurrentForwardTolerance of the oracle for T ≤ 64, |W| ≤ 1/√H, inputs and
///          states of about 1, without tf32; where something is normalized, within
///          kNormalizedForwardTolerance if its standard deviation is at least 1/20. Sums are float; a bf16 product x·W_ih is rounded to
///          bf16 once, in `gates`, before the recurrent part is added to it in float, and a
///          normalized one once more; float states are never rounded, h is fed back as stored, and
///          normalized values are used as stored in `normal` and `saved`. Repeats bit for bit.
/// Memory   Writes the input part of all steps into `gates` by one product over T·B rows, and
///          activates it in place. A step reads W_hh, the states before and gates[t], writes
///          gates[t] and the states, and passes G·H floats a row through scratch. Where rows have
///          ranges, the CPU's products leave out the steps that are not there.
/// Source   cells/<cell>.h.
template <class T>
struct RecurrentSequenceForward {
  CellKind cell = nullptr;
  View<const T, 3> x;                       ///< [T, B, I]
  View<const T, 2> weight_ih;               ///< [G·H, I]
  View<const T, 2> weight_hh{};             ///< [G·H, P/heads] or absent: zero
  View<const T, 2> weight_hr{};             ///< [P, H] or absent: P = H, no product
  View<const Accumulator<T>, 1> bias_ih{};  ///< [G·H] or absent, both
  View<const Accumulator<T>, 1> bias_hh{};  ///< [G·H] or absent, both
  View<const Accumulator<T>, 2>
      gain{};  ///< [2, G·H] of the input's and the recurrent part, or absent
  View<const Accumulator<T>, 2> parameter{};  ///< [CellInfo::parameters, H], absent if that is 0
  StartViews<const Accumulator<T>> start{};   ///< [P], [H] … or absent: zero; h is rounded to T
  View<const T, 2> h0{};                      ///< [B, P] or absent
  StateViews<const Accumulator<T>, 2> state0{};  ///< [B, H] each or absent
  View<const std::int32_t, 1>
      carried{};                        ///< [B] or absent; 0: the row begins at `start`, not at h0
  View<const std::int32_t, 2> reset{};  ///< [T, B] or absent; not 0: a sequence starts here
  RowRangeView rows{};                  ///< absent: all rows have T steps
  bool reverse = false;
  RecurrentOptions options{};
  View<T, 3> h;                           ///< [T, B, P] out
  StateViews<Accumulator<T>, 3> state{};  ///< [T, B, H] out, each
  View<T, 3> gates;                       ///< [T, B, G·H] out: activations
  View<T, 4>
      saved{};  ///< [saved_count(), T, B, H] out, absent if that is 0: CellInfo::saved(), then m
  View<T, 4> normal{};  ///< [2, T, B, G·H] out, with gain: the normalized parts
  View<Accumulator<T>, 3>
      deviation{};               ///< [normalizations(), T, B] out, absent if that is 0: their
                                 ///< factors 1 / √(variance + 1e-5): input's, recurrent, phases'
  View<std::uint8_t, 3> mask{};  ///< [T, B, H] out, if options.draws(): MaskBits
  View<T, 2> h_last{};           ///< [B, P] out or absent: the state at each row's end
  StateViews<Accumulator<T>, 2> state_last{};  ///< [B, H] out or absent, each
  View<std::byte, 1> scratch{};                ///< scratch_bytes(device, op), aligned to 256
  bool tf32 = false;                           ///< float on CUDA: products round inputs to tf32

  int saved_count() const;     ///< of `saved`: the cell's, and m if there is a projection
  int normalizations() const;  ///< of `deviation`: 2 with gain, and one for each normalized phase
  void check() const;
  void run(const Cpu& device) const;
  void run(const Cuda& device) const;
  std::size_t scratch_bytes(const Cpu& device) const;  ///< with as many threads as there are now
  std::size_t scratch_bytes(const Cuda& device) const;
};

/// The gradients of all inputs by back-propagation through time, given the gradients of every h[t] and
/// of the final state: with δa[t] those of the pre-activations (δu[t], where the recurrent part's
/// differ) and δĥ what reaches ĥ past the product; t + 1 is the step after, t − 1 if `reverse`:
///
///     δh[t]  = d_h[t] + W_hhᵀ·δu[t+1] + δĥ[t+1]       (at a row's last step: d_h[t] + d_h_last)
///     d_x[t] = W_ihᵀ·δa[t]              d_weight_ih = Σ_t δa[t]·x[t]ᵀ
///     d_bias_ih = Σ_t δa[t]             d_weight_hh = Σ_t δu[t]·ĥᵀ
///     d_bias_hh = Σ_t δu[t]
///
/// d_h0, d_state0 are what flows out of a row's first step, d_start the sum of what flows out of all
/// steps that begin at `start`. Nothing flows across a reset. A row of no steps hands on the gradients of
/// its final state. With gain, the products read the gradients of what was normalized, rounded to T,
/// the biases those of what leaves the normalization. With weight_hr, δm = W_hrᵀ·δh, and δh is
/// rounded to T once.
///
/// Values   As the formula; an absent gradient going in is zero, an absent one going out is not
///          wanted. All of them are written when T·B = 0. Outside a row's range gradients are 0,
///          and what x, d_h and the rest hold there has no influence.
/// Errors   As for the forward pass.
/// Accuracy Within kRecurrentBackwardTolerance of the oracle, forward pass included (where something
///          is normalized, kNormalizedBackwardTolerance), under the same conditions, for gradients of about 1 and sums over T·B ≤ 320 rows. Gradients of states
///          are carried in float; δa and δu are rounded once, to T, and all products read that.
/// Memory   A step reads gates[t], the states after and before, d_h[t] and W_hh, and writes δa[t]
///          over gates[t] and δu[t] over saved. Then one product over all T·B rows for each weight
///          and for d_x, and one column sum. Only where ĥ is not h, one step later, is it written
///          out, [T, B, P] in scratch.
template <class T>
struct RecurrentSequenceBackward {
  CellKind cell = nullptr;
  View<const T, 3> d_h{};       ///< [T, B, P] or absent
  View<const T, 2> d_h_last{};  ///< [B, P] or absent: of the final state, besides d_h
  StateViews<const Accumulator<T>, 2> d_state_last{};  ///< [B, H] or absent, each
  View<const T, 3> x;                                  ///< these as given to the forward pass …
  View<const T, 2> weight_ih;
  View<const T, 2> weight_hh{};
  View<const T, 2> weight_hr{};
  View<const Accumulator<T>, 2> gain{};
  View<const Accumulator<T>, 2> parameter{};
  StartViews<const Accumulator<T>> start{};
  View<const T, 2> h0{};
  StateViews<const Accumulator<T>, 2> state0{};
  View<const std::int32_t, 1> carried{};
  View<const std::int32_t, 2> reset{};
  RowRangeView rows{};
  bool reverse = false;
  RecurrentOptions options{};
  View<const T, 3> h;  ///< … and these as it left them
  StateViews<const Accumulator<T>, 3> state{};
  View<T, 3> gates;     ///< [T, B, G·H] in: activations; out: δa, in place
  View<T, 4> saved{};   ///< in: as the forward pass left it; out: δu of the split gates first
  View<T, 4> normal{};  ///< in: the normalized parts; out: gradients of what was normalized
  View<const Accumulator<T>, 3> deviation{};
  View<const std::uint8_t, 3> mask{};
  Gradient<T, 3> d_x{};                       ///< [T, B, I] out
  Gradient<Accumulator<T>, 2> d_weight_ih{};  ///< [G·H, I] out
  Gradient<Accumulator<T>, 2> d_weight_hh{};  ///< [G·H, P/heads] out
  Gradient<Accumulator<T>, 2> d_weight_hr{};  ///< [P, H] out
  Gradient<Accumulator<T>, 1> d_bias_ih{};    ///< [G·H] out
  Gradient<Accumulator<T>, 1> d_bias_hh{};    ///< [G·H] out
  Gradient<Accumulator<T>, 2> d_gain{};       ///< [2, G·H] out
  Gradient<Accumulator<T>, 2> d_parameter{};  ///< [CellInfo::parameters, H] out
  std::array<Gradient<Accumulator<T>, 1>, kMostStates> d_start{};       ///< [P], [H] … out
  Gradient<T, 2> d_h0{};                                                ///< [B, P] out
  std::array<Gradient<Accumulator<T>, 2>, kMostStates - 1> d_state0{};  ///< [B, H] out, each
  View<std::byte, 1> scratch{};  ///< scratch_bytes(device, op), aligned to 256
  bool tf32 = false;             ///< float on CUDA: products round inputs to tf32

  int saved_count() const;
  int normalizations() const;
  void check() const;
  void run(const Cpu& device) const;
  void run(const Cuda& device) const;
  std::size_t scratch_bytes(const Cpu& device) const;
  std::size_t scratch_bytes(const Cuda& device) const;
};

}  // namespace carousel
