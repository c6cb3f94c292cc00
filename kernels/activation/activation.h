#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// A function f that is applied to each element. Φ and σ are the distribution function of the normal
/// distribution and the logistic function.
enum class Activation : std::uint8_t {
  gelu,       ///< x·Φ(x)
  gelu_tanh,  ///< x·σ(2u), u = √(2/π)·(x + 0.044715·x³), which is x·(1 + tanh u) / 2
  relu,       ///< max(x, 0)
  silu,       ///< x·σ(x)
  tanh,
};

/// An activation by the name that configs give it.
struct NamedActivation {
  std::string_view name;
  Activation kind;
};
std::span<const NamedActivation> activations();

/// y[n] = f(x[n]).
///
/// Values   NaN gives NaN. −infinity gives NaN where f is a product with x, of which the other factor
///          is 0.
/// Errors   ShapeError if the extents disagree. N == 0 does nothing.
/// Accuracy within kActivationForwardTolerance for |x| ≤ 12. No small value is a difference of large
///          ones: the tails of gelu keep their digits.
/// Memory   reads x once, writes y once. y may be x itself.
/// Source   Hendrycks & Gimpel 2016, arXiv:1606.08415 (gelu, its approximation, silu); Nair & Hinton
///          2010, ICML, 807–814 (relu).
template <class T>
struct ActivationForward {
  View<const T, 1> x;  ///< [N]
  View<T, 1> y;        ///< [N] out
  Activation kind = Activation::gelu;
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradient, given d_y = ∂L/∂y:
///
///     d_x[n] (+)= f′(x[n])·d_y[n]
///
/// Values   relu′(0) = 0. NaN gives NaN. Where f is a product with x, an infinite x gives NaN, as does
///          one whose square overflows in gelu_tanh.
/// Errors   as above.
/// Accuracy within kActivationBackwardTolerance for |x| ≤ 12, |d_y| ≤ 1.
/// Memory   reads x and d_y once, writes d_x once (and reads it once when accumulating). d_x may be
///          d_y itself unless it accumulates.
template <class T>
struct ActivationBackward {
  View<const T, 1> x;    ///< [N] as in the forward pass
  View<const T, 1> d_y;  ///< [N]
  Gradient<T, 1> d_x;    ///< [N] out
  Activation kind = Activation::gelu;
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

inline constexpr Tolerances kActivationForwardTolerance{
    .f32 = {.absolute = 1e-7, .relative = 5e-7, .worst = 0.35},
    .bf16 = {.absolute = 1e-7, .relative = 0x1p-8, .worst = 0.99}};
inline constexpr Tolerances kActivationBackwardTolerance{
    .f32 = {.absolute = 5e-7, .relative = 5e-7, .worst = 0.35},
    .bf16 = {.absolute = 5e-7, .relative = 0x1p-8, .worst = 1}};

}  // namespace carousel
