#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/random.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// Sets elements to zero at random and scales up the others, so that the expectation stays:
///
///     y[n] = scale · mask[n] · x[n],    scale = 1 / (1 − drop_probability), rounded to float
///     mask[n] = [dropout_keeps(source, step, n mod period, drop_probability)]
///
/// A period of B·H of x [T, B, H] is one mask per sequence, the same at every time step
/// ("variational" or "locked" dropout).
///
/// Values   0 ≤ drop_probability ≤ 1. At 0 this is a copy. At 1 every mask is 0, and so is scale.
///          A dropped NaN or infinity gives NaN, as the product says. source.step is read on the
///          device when the op runs.
/// Errors   ShapeError if the extents disagree, N is no multiple of the period or source.step is
///          missing; ConfigError if drop_probability is not in [0, 1]. N == 0 does nothing.
/// Accuracy exact: the product in float, rounded once to T. Equal bit for bit on every device.
/// Memory   reads x once, writes y once. y may be x itself. The mask is not stored: the backward
///          pass draws it again. With a period, a draw serves several repeats of the mask.
/// Source   Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov 2014, JMLR 15:1929 ("inverted":
///          scaled in training, so that evaluation does nothing); Zaremba, Sutskever & Vinyals 2014,
///          arXiv:1409.2329 (where it belongs in an LSTM: between layers, not between steps); Gal &
///          Ghahramani 2016, arXiv:1512.05287 (one mask for all steps).
template <class T>
struct DropoutForward {
  View<const T, 1> x;          ///< [N]
  View<T, 1> y;                ///< [N] out
  float drop_probability = 0;  ///< how likely an element becomes zero
  RandomSource source;         ///< with its step on the device
  std::int64_t period = 0;     ///< elements until the mask repeats; 0: it does not
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradient, given d_y = ∂L/∂y and the step at which the forward pass ran:
///
///     d_x[n] (+)= scale · mask[n] · d_y[n]
///
/// As above in everything; when accumulating, product and sum are one fused multiply-add, rounded
/// once to float and then to T. d_x may be d_y itself unless it accumulates.
template <class T>
struct DropoutBackward {
  View<const T, 1> d_y;        ///< [N]
  Gradient<T, 1> d_x;          ///< [N] out
  float drop_probability = 0;  ///< as in the forward pass
  RandomSource source;         ///< as in the forward pass
  std::int64_t period = 0;     ///< as in the forward pass
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Whether a random word keeps its element: with probability 1 − drop_probability, to within 2⁻²⁴.
constexpr bool dropout_keeps(std::uint32_t word, float drop_probability) {
  return uniform(word) >= drop_probability;
}

/// Whether element n survives at `step`: what every kernel computes, four elements to a block.
constexpr bool dropout_keeps(const RandomSource& source, std::int64_t step, std::int64_t n,
                             float drop_probability) {
  const auto index = static_cast<std::uint64_t>(n);
  return dropout_keeps(source.words(index / 4, step)[index % 4], drop_probability);
}

/// What survivors are multiplied by.
constexpr float dropout_scale(float drop_probability) {
  if (drop_probability == 1.0F) return 0.0F;
  return static_cast<float>(1.0 / (1.0 - static_cast<double>(drop_probability)));
}

/// Exact: the sweep demands equality.
inline constexpr Tolerances kDropoutTolerance{.f32 = {.worst = 0}, .bf16 = {.worst = 0}};

}  // namespace carousel
