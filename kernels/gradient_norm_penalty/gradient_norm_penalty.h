#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/steps.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// The activation φ of a simple recurrent network h[t] = φ(a[t]), a[t+1] = … + W_hh·h[t].
enum class SimpleActivation : std::uint8_t { tanh, relu, linear };

/// φ'(a), given h = φ(a): 1 − h², [h > 0] or 1. NaN stays NaN.
template <class R>
constexpr R activation_slope(SimpleActivation activation, R h) {
  switch (activation) {
    case SimpleActivation::tanh:
      return 1 - h * h;
    case SimpleActivation::relu:
      return h > 0 ? R{1} : h * 0;
    case SimpleActivation::linear:
      break;
  }
  return 1;
}

/// A penalty on gradients that vanish or explode between two steps of a simple recurrent network,
/// and its immediate gradient. With δ[t] = ∂L/∂a[t], as the backward pass of the recurrence leaves
/// it, for each pair of steps of a row
///
///     ratio[t,b] = ‖(δ[t+1,b]·W_hh) ∘ φ'(a[t,b])‖ / ‖δ[t+1,b]‖
///     penalty    = mean of (ratio − 1)²
///     d_weight_hh (+)= weight · ∂penalty / ∂W_hh    with δ and φ' held constant
///
/// This is no true derivative of the penalty: δ and φ' depend on W_hh too. Two steps are a pair if
/// the row has both and does not reset at the second.
///
/// Values   A pair whose ‖δ[t+1]‖ is below 2⁻¹²⁶, the smallest normal float, does not count: no loss
///          reaches it. A ratio of 0 counts, with gradient 0. A mean of nothing is 0, and so is its
///          gradient. Outside a row's range h is not looked at; δ is 0 there, as the recurrence
///          leaves it. NaN or infinity elsewhere spreads as arithmetic says.
/// Errors   ShapeError if the extents disagree or scratch is too small; ConfigError if weight is not
///          finite, or for double on CUDA.
/// Accuracy within kGradientNormPenaltyTolerance of the oracle for H ≤ 256, |W_hh| ≤ 2/√H and
///          T·B ≤ 320, for ‖δ‖ from 10⁻³⁰ to 10⁺³⁰: norms are summed in double, products in float;
///          of bf16, the second product reads its factor rounded to bf16.
/// Memory   two products over all T·B rows and d_weight_hh; between them the rows are read twice.
///          Scratch holds [T·B, H] floats and, of bf16, as many bf16.
/// Source   Pascanu, Mikolov & Bengio 2013, ICML 28(3):1310, equations 9 and 10, as a mean over
///          pairs.
template <class T>
struct GradientNormPenalty {
  SimpleActivation activation = SimpleActivation::tanh;
  View<const T, 3> delta;                   ///< [T, B, H] δ
  View<const T, 3> h;                       ///< [T, B, H]
  View<const T, 2> weight_hh;               ///< [H, H]
  View<const std::int32_t, 1> begin{};      ///< [B] clamped to 0 … T, or absent: 0
  View<const std::int32_t, 1> end{};        ///< [B] clamped to 0 … T, or absent: T
  View<const std::int32_t, 2> reset{};      ///< [T, B] or absent; not 0: a sequence starts here
  float weight = 1;                         ///< of the penalty in a sum of losses
  View<Accumulator<T>, 1> penalty;          ///< [1] out, not weighted
  Gradient<Accumulator<T>, 2> d_weight_hh;  ///< [H, H] out
  View<std::byte, 1> scratch{};             ///< scratch_bytes(device, op), aligned to 256
  bool tf32 = false;                        ///< float on CUDA: products round inputs to tf32
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;

  constexpr Steps steps() const { return {h.extent[0], h.extent[1], begin, end, reset}; }
};

/// Of the penalty, and of gradients weighted to be about 1.
inline constexpr Tolerances kGradientNormPenaltyTolerance{
    .f32 = {.absolute = 4e-7, .relative = 4e-7, .worst = 0.24},
    .bf16 = {.absolute = 4e-3, .relative = 2e-3, .worst = 0.19}};

}  // namespace carousel
