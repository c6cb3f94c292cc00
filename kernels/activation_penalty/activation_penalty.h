#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/steps.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// What an ActivationPenalty makes small.
enum class PenaltyKind : std::uint8_t {
  activation,  ///< the values of h
  temporal,    ///< their changes from one step to the next
};

/// A penalty on hidden states, and its gradient:
///
///     activation:  penalty = mean of h[t,b,j]²                   over all steps of all rows
///     temporal:    penalty = mean of (h[t+1,b,j] − h[t,b,j])²    over all pairs of steps
///     d_h[t,b,j] (+)= weight · ∂penalty / ∂h[t,b,j]
///
/// A row has the steps begin ≤ t < end. Two steps are a pair if the row has both and does not reset
/// at the second.
///
/// Values   Steps outside a row's range are not read, and their gradient is 0; NaN or infinity in
///          others spreads as arithmetic says. A mean of nothing is 0, and so are its gradients.
/// Errors   ShapeError if the extents disagree or scratch is too small; ConfigError if weight is not
///          finite, or for double on CUDA.
/// Accuracy within kActivationPenaltyTolerance of the oracle for |h| ≤ 1 and gradients of about 1.
///          Repeats bit for bit: sums are made in an order that the extents fix.
/// Memory   reads h once (temporal: each step with its neighbours, which are in cache), writes d_h
///          once, and reads it once when accumulating.
/// Source   Merity, McCann & Socher 2017, arXiv:1708.01009, section 4, whose norms are these means.
template <class T>
struct ActivationPenalty {
  PenaltyKind kind = PenaltyKind::activation;
  View<const T, 3> h;                   ///< [T, B, H]
  View<const std::int32_t, 1> begin{};  ///< [B] clamped to 0 … T, or absent: 0
  View<const std::int32_t, 1> end{};    ///< [B] clamped to 0 … T, or absent: T
  View<const std::int32_t, 2> reset{};  ///< [T, B] or absent; not 0: a sequence starts here
  float weight = 1;                     ///< of the penalty in a sum of losses
  View<Accumulator<T>, 1> penalty;      ///< [1] out, not weighted
  Gradient<T, 3> d_h{};                 ///< [T, B, H] out
  View<std::byte, 1> scratch{};         ///< scratch_bytes(device, op), aligned to 256
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;

  constexpr Steps steps() const { return {h.extent[0], h.extent[1], begin, end, reset}; }
};

/// Of the penalty and of the gradient, weighted to be about 1. (A bf16 gradient is rounded to bf16.)
inline constexpr Tolerances kActivationPenaltyTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.25},
    .bf16 = {.absolute = 1e-6, .relative = 0x1p-8, .worst = 0.996}};

}  // namespace carousel
