#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// Normalizes each row to mean 0 and variance 1, then scales and shifts its columns:
///
///     y[n,c] = gain[c]·x̂[n,c] + bias[c],    x̂[n,c] = inverse_deviation[n]·(x[n,c] − mean[n])
///     mean[n] = Σ_c x[n,c] / C,    inverse_deviation[n] = 1 / √(Σ_c (x[n,c] − mean[n])² / C + epsilon)
///
/// Values   an absent gain is 1, an absent bias 0. A NaN or an infinity makes its row NaN, and so does
///          a row of equal numbers if epsilon is 0.
/// Errors   ShapeError if the extents disagree or C == 0; ConfigError unless epsilon ≥ 0. N == 0 does
///          nothing.
/// Accuracy within kLayerNormForwardTolerance for |gain|, |bias| ≤ 1 and rows whose mean is at most
///          ten times their deviation. The mean is subtracted before anything is squared.
/// Memory   reads x once from memory and twice more from the cache, writes y once.
/// Source   Ba, Kiros & Hinton 2016, arXiv:1607.06450, equations 3 and 4, of one layer's units.
template <class T>
struct LayerNormForward {
  View<const T, 2> x;                            ///< [N, C]
  View<const Accumulator<T>, 1> gain{}, bias{};  ///< [C]
  float epsilon = 1e-5F;
  View<T, 2> y;                                     ///< [N, C] out
  View<Accumulator<T>, 1> mean, inverse_deviation;  ///< [N] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradients, given d_y = ∂L/∂y. With δ = gain ∘ d_y and means over the columns of a row:
///
///     d_x[n] (+)= inverse_deviation[n]·(δ[n] − mean(δ[n]) − x̂[n]·mean(δ[n] ∘ x̂[n]))
///     d_gain (+)= Σ_n d_y[n] ∘ x̂[n],    d_bias (+)= Σ_n d_y[n]
///
/// Values   those that are absent are not computed. NaN and infinity spread as arithmetic says.
/// Errors   ShapeError if the extents disagree, C == 0 or scratch is too small. N == 0 gives empty
///          sums, 0.
/// Accuracy within kLayerNormBackwardTolerance for |d_y|, |gain| ≤ 1 and rows as above, and N ≤ 4096.
///          The sums over rows have an order that the extents fix: they repeat bit for bit, whatever
///          the number of threads.
/// Memory   reads x and d_y once for d_x (and once more from the cache) and once for d_gain and
///          d_bias, writes d_x once. d_x may be d_y itself unless it accumulates.
template <class T>
struct LayerNormBackward {
  View<const T, 2> x;                                     ///< [N, C] as in the forward pass
  View<const Accumulator<T>, 1> gain{};                   ///< [C] as in the forward pass
  View<const Accumulator<T>, 1> mean, inverse_deviation;  ///< [N] as the forward pass left them
  View<const T, 2> d_y;                                   ///< [N, C]
  Gradient<T, 2> d_x{};                                   ///< [N, C] out
  Gradient<Accumulator<T>, 1> d_gain{}, d_bias{};         ///< [C] out
  View<std::byte, 1> scratch{};  ///< scratch_bytes(device, op), aligned to 4
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const { return 0; }
  std::size_t scratch_bytes(const Cuda&) const;
};

inline constexpr Tolerances kLayerNormForwardTolerance{
    .f32 = {.absolute = 2e-6, .relative = 1e-6, .worst = 0.35},
    .bf16 = {.absolute = 2e-6, .relative = 0x1p-8, .worst = 1}};
inline constexpr Tolerances kLayerNormBackwardTolerance{
    .f32 = {.absolute = 1e-5, .relative = 1e-5, .worst = 0.35},
    .bf16 = {.absolute = 1e-5, .relative = 0x1p-8, .worst = 1}};

}  // namespace carousel
