#pragma once

#include <cstdint>

#include "kernels/activation/activation.h"

namespace carousel {

/// A function of the first half of each row gates the second half:
///
///     y[n,c] = f(x[n,c]) · x[n, C + c],    0 ≤ c < C
///
/// With silu this is SwiGLU, whose two products are one of a weight [2·C, E].
///
/// Values   NaN and infinity spread as arithmetic says, through f as in kernels/activation.
/// Errors   ShapeError if the extents disagree. N == 0 or C == 0 does nothing.
/// Accuracy within kGatedActivationForwardTolerance for |x| ≤ 6.
/// Memory   reads x once, writes y once.
/// Source   Dauphin, Fan, Auli & Grangier 2017, arXiv:1612.08083 (gated linear units); Shazeer 2020,
///          arXiv:2002.05202, equation 5 (SwiGLU, GEGLU, ReGLU).
template <class T>
struct GatedActivationForward {
  View<const T, 2> x;  ///< [N, 2·C]
  View<T, 2> y;        ///< [N, C] out
  Activation kind = Activation::silu;
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradients, given d_y = ∂L/∂y:
///
///     d_x[n,c] (+)= f′(x[n,c]) · x[n, C + c] · d_y[n,c],    d_x[n, C + c] (+)= f(x[n,c]) · d_y[n,c]
///
/// Values   as above; f′ as in kernels/activation.
/// Errors   as above.
/// Accuracy within kGatedActivationBackwardTolerance for |x| ≤ 6, |d_y| ≤ 1.
/// Memory   reads x and d_y once, writes d_x once (and reads it once when accumulating). d_x may be
///          x itself unless it accumulates.
template <class T>
struct GatedActivationBackward {
  View<const T, 2> x;    ///< [N, 2·C] as in the forward pass
  View<const T, 2> d_y;  ///< [N, C]
  Gradient<T, 2> d_x;    ///< [N, 2·C] out
  Activation kind = Activation::silu;
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

inline constexpr Tolerances kGatedActivationForwardTolerance{
    .f32 = {.absolute = 5e-7, .relative = 5e-7, .worst = 0.4},
    .bf16 = {.absolute = 5e-7, .relative = 0x1p-8, .worst = 1}};
inline constexpr Tolerances kGatedActivationBackwardTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.8},
    .bf16 = {.absolute = 1e-6, .relative = 0x1p-8, .worst = 1}};

}  // namespace carousel
