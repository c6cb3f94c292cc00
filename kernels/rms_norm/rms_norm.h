#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// Divides each row by its root mean square, then scales its columns:
///
///     y[n,c] = gain[c]·inverse_rms[n]·x[n,c],    inverse_rms[n] = 1 / √(Σ_c x[n,c]² / C + epsilon)
///
/// With `added`, the residual sum and its norm in one pass: sum[n,c] = x[n,c] + added[n,c], rounded to T,
/// stands for x[n,c] above, and for x in the backward pass.
///
/// Values   an absent gain is 1. A NaN or an infinity makes its row NaN, at least where it stands, and
///          so does a row of zeros if epsilon is 0.
/// Errors   ShapeError if the extents disagree, C == 0 or one of added and sum is absent; ConfigError
///          unless epsilon ≥ 0. N == 0 does nothing.
/// Accuracy within kRmsNormForwardTolerance for |gain| ≤ 1, C ≤ 8195 and rows whose largest number is
///          at most ten times their root mean square.
/// Memory   reads x (and added) once from memory and what is normalized once more from the cache,
///          writes y (and sum) once. sum may be x or added.
/// Source   Zhang & Sennrich 2019, arXiv:1910.07467, equation 4, without its bias.
template <class T>
struct RmsNormForward {
  View<const T, 2> x;                    ///< [N, C]
  View<const T, 2> added{};              ///< [N, C] may be absent
  View<const Accumulator<T>, 1> gain{};  ///< [C]
  float epsilon = 1e-5F;
  View<T, 2> sum{};                     ///< [N, C] out, with added
  View<T, 2> y;                         ///< [N, C] out
  View<Accumulator<T>, 1> inverse_rms;  ///< [N] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradients, given d_y = ∂L/∂y. With δ = gain ∘ d_y and the mean over the columns of a row:
///
///     d_x[n] (+)= inverse_rms[n]·(δ[n] − x[n]·inverse_rms[n]²·mean(δ[n] ∘ x[n]))
///     d_gain (+)= Σ_n d_y[n] ∘ x[n]·inverse_rms[n]
///
/// Values   those that are absent are not computed. NaN and infinity spread as arithmetic says.
/// Errors   ShapeError if the extents disagree, C == 0 or scratch is too small. N == 0 gives empty
///          sums, 0.
/// Accuracy within kRmsNormBackwardTolerance for |d_y|, |gain| ≤ 1, rows as above, whose root mean
///          square is at least 1/2, and N ≤ 4096. The sums over rows have an order that the extents
///          fix: they repeat bit for bit, whatever the number of threads.
/// Memory   reads x and d_y once for d_x (and once more from the cache) and once for d_gain, writes
///          d_x once. d_x may be d_y itself unless it accumulates.
template <class T>
struct RmsNormBackward {
  View<const T, 2> x;                         ///< [N, C] as in the forward pass
  View<const Accumulator<T>, 1> gain{};       ///< [C] as in the forward pass
  View<const Accumulator<T>, 1> inverse_rms;  ///< [N] as the forward pass left it
  View<const T, 2> d_y;                       ///< [N, C]
  Gradient<T, 2> d_x{};                       ///< [N, C] out
  Gradient<Accumulator<T>, 1> d_gain{};       ///< [C] out
  View<std::byte, 1> scratch{};               ///< scratch_bytes(device, op), aligned to 4
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const { return 0; }
  std::size_t scratch_bytes(const Cuda&) const;
};

inline constexpr Tolerances kRmsNormForwardTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.15},
    .bf16 = {.absolute = 1e-6, .relative = 0x1p-8, .worst = 1}};
inline constexpr Tolerances kRmsNormBackwardTolerance{
    .f32 = {.absolute = 5e-6, .relative = 5e-6, .worst = 0.4},
    .bf16 = {.absolute = 5e-6, .relative = 0x1p-8, .worst = 1}};

}  // namespace carousel
