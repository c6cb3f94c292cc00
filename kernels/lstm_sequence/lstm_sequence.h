#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

inline constexpr Tolerances kLstmForwardTolerance{
    .f32 = {.absolute = 8e-7, .relative = 8e-7, .worst = 0.3},
    .bf16 = {.absolute = 1e-2, .relative = 1e-2, .worst = 0.3}};
inline constexpr Tolerances kLstmBackwardTolerance{
    .f32 = {.absolute = 4e-6, .relative = 4e-6, .worst = 0.25},
    .bf16 = {.absolute = 5e-2, .relative = 2e-2, .worst = 0.4}};

/// One layer of long short-term memory over a whole sequence, for t = 0, 1, … T−1:
///
///     ĥ, ĉ = h[t−1], c[t−1]           (h0, c0 at t = 0; 0, 0 in the rows that reset[t] names)
///     a    = W_ih·x[t] + b_ih + W_hh·ĥ + b_hh
///     i, f, g, o = σ(a_i), σ(a_f), tanh(a_g), σ(a_o)
///     c[t] = f ∘ ĉ + i ∘ g            (the constant error carousel)
///     h[t] = o ∘ tanh c[t]
///
/// The 4H rows of the weights and columns of `gates` are H each of i, f, g, o, as in PyTorch. The
/// final state is the last slice of h and of c. T, B, I and H are any numbers, 0 included.
///
/// Values   NaN and infinity follow the formula, row by row: a row that resets forgets them too.
/// Errors   ShapeError if extents disagree, one bias comes without the other, or scratch is too
///          small.
/// Accuracy Within kLstmForwardTolerance of the oracle for T ≤ 64, |W| ≤ 1/√H and inputs of about
///          1, without tf32. Sums are float; a bf16 product x·W_ih is rounded to bf16 once, in
///          `gates`, before the recurrent part is added to it in float; c is never rounded.
///          Repeats bit for bit.
/// Memory   Writes the input part of all steps into `gates` by one product over T·B rows, and
///          activates it in place. A step reads W_hh, h[t−1], c[t−1] and gates[t], writes gates[t],
///          h[t], c[t], and passes 4H floats a row through scratch.
/// Source   Hochreiter & Schmidhuber 1997, Neural Computation 9(8), 1735–1780; the forget gate:
///          Gers, Schmidhuber & Cummins 2000, Neural Computation 12(10), 2451–2471.
template <class T>
struct LstmSequenceForward {
  View<const T, 3> x;                       ///< [T, B, I]
  View<const T, 2> weight_ih;               ///< [4H, I]
  View<const T, 2> weight_hh;               ///< [4H, H]
  View<const Accumulator<T>, 1> bias_ih{};  ///< [4H] or absent, both
  View<const Accumulator<T>, 1> bias_hh{};  ///< [4H] or absent, both
  View<const T, 2> h0{};                    ///< [B, H] or absent: zero
  View<const Accumulator<T>, 2> c0{};       ///< [B, H] or absent: zero
  View<const std::int32_t, 2> reset{};      ///< [T, B] or absent; not 0: a sequence starts here
  View<T, 3> h;                             ///< [T, B, H] out
  View<Accumulator<T>, 3> c;                ///< [T, B, H] out: cell states
  View<T, 3> gates;                         ///< [T, B, 4H] out: i, f, g, o, for the backward pass
  View<std::byte, 1> scratch{};             ///< scratch_bytes(device, op), aligned to 256
  bool tf32 = false;                        ///< float on CUDA: products round inputs to tf32
  void check() const;
};

/// The gradients of all inputs by back-propagation through time, for t = T−1, … 0, given the
/// gradients of every h[t] and of the final state:
///
///     δh = d_h[t] + W_hhᵀ·δa[t+1]                     (at t = T−1: d_h[t] + d_h_last)
///     δc = δh ∘ o ∘ (1 − tanh² c[t]) + f[t+1] ∘ δc[t+1]       (at t = T−1: … + d_c_last)
///     δa[t] = δc ∘ g ∘ i(1−i),  δc ∘ ĉ ∘ f(1−f),  δc ∘ i ∘ (1−g²),  δh ∘ tanh c[t] ∘ o(1−o)
///
///     d_x[t] = W_ihᵀ·δa[t]              d_weight_ih = Σ_t δa[t]·x[t]ᵀ
///     d_bias = Σ_t δa[t]                d_weight_hh = Σ_t δa[t]·ĥᵀ
///
/// and d_h0, d_c0 are what flows out of step 0. Nothing flows from a row that resets into the step
/// before it. With T = 0 the final state is the initial one, and so are their gradients.
///
/// Values   As the formula; an absent gradient going in is zero, an absent one going out is not
///          wanted. Each output is overwritten, or added to where its accumulate field says so;
///          all of them are written when T·B = 0.
/// Errors   As for the forward pass.
/// Accuracy Within kLstmBackwardTolerance of the oracle, forward pass included, under the same
///          conditions, for gradients of about 1 and sums over T·B ≤ 320 rows. δh and δc are
///          carried in float; δa is rounded once, to T, and all products read that.
/// Memory   A step reads gates[t], c[t], c[t−1], d_h[t] and W_hh, and writes δa[t] over gates[t].
///          Then one product over all T·B rows for each weight and for d_x, and one column sum.
///          Only where `reset` is given is ĥ written out, [T, B, H] in scratch.
template <class T>
struct LstmSequenceBackward {
  View<const T, 3> d_h{};                    ///< [T, B, H] or absent
  View<const T, 2> d_h_last{};               ///< [B, H] or absent: of the final state, besides d_h
  View<const Accumulator<T>, 2> d_c_last{};  ///< [B, H] or absent
  View<const T, 3> x;                        ///< these as given to the forward pass …
  View<const T, 2> weight_ih;
  View<const T, 2> weight_hh;
  View<const T, 2> h0{};
  View<const Accumulator<T>, 2> c0{};
  View<const std::int32_t, 2> reset{};
  View<const T, 3> h;  ///< … and these as it left them
  View<const Accumulator<T>, 3> c;
  View<T, 3> gates;                       ///< [T, B, 4H] in: i, f, g, o; out: δa, in place
  View<T, 3> d_x{};                       ///< [T, B, I] out
  View<Accumulator<T>, 2> d_weight_ih{};  ///< [4H, I] out
  View<Accumulator<T>, 2> d_weight_hh{};  ///< [4H, H] out
  View<Accumulator<T>, 1> d_bias_ih{};    ///< [4H] out: the biases enter as a sum, so their
  View<Accumulator<T>, 1> d_bias_hh{};    ///< [4H] out: gradients are equal
  View<T, 2> d_h0{};                      ///< [B, H] out
  View<Accumulator<T>, 2> d_c0{};         ///< [B, H] out
  bool accumulate_d_x = false;
  bool accumulate_d_weight_ih = false;
  bool accumulate_d_weight_hh = false;
  bool accumulate_d_bias_ih = false;
  bool accumulate_d_bias_hh = false;
  bool accumulate_d_h0 = false;
  bool accumulate_d_c0 = false;
  View<std::byte, 1> scratch{};  ///< scratch_bytes(device, op), aligned to 256
  bool tf32 = false;             ///< float on CUDA: products round inputs to tf32
  void check() const;
};

/// Bytes of scratch memory an op needs, given its other fields; on the CPU, with as many threads as
/// there are now.
template <class T>
std::size_t scratch_bytes(const Cpu& device, const LstmSequenceForward<T>& op);
template <class T>
std::size_t scratch_bytes(const Cuda& device, const LstmSequenceForward<T>& op);
template <class T>
std::size_t scratch_bytes(const Cpu& device, const LstmSequenceBackward<T>& op);
template <class T>
std::size_t scratch_bytes(const Cuda& device, const LstmSequenceBackward<T>& op);

template <class T>
void run(const Cpu& device, const LstmSequenceForward<T>& op);
template <class T>
void run(const Cuda& device, const LstmSequenceForward<T>& op);
template <class T>
void run(const Cpu& device, const LstmSequenceBackward<T>& op);
template <class T>
void run(const Cuda& device, const LstmSequenceBackward<T>& op);

}  // namespace carousel
