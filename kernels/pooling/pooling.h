#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// How the states of a sequence become one.
enum class Pooling : std::uint8_t { mean, max };

/// Pools every sequence of a batch over its time steps, of which row b has
/// n[b] = min(max(length[b], 0), T), or T where length is absent:
///
///     mean:  y[b,h] = Σ_{t < n[b]} x[t,b,h] / n[b]
///     max:   y[b,h] = max_{t < n[b]} x[t,b,h] = x[chosen[b,h], b, h]
///
/// Values   a row with n[b] = 0 gives y = 0 and chosen = −1. Of equal maxima the first step is
///          chosen. A NaN counts as larger than every number: mean and max of a row that holds one
///          are NaN. Steps t ≥ n[b] are padding: they may hold anything and are not read.
/// Errors   ShapeError if the extents disagree, if chosen is absent for max or present for mean, or
///          if T ≥ 2³¹. B == 0 or H == 0 does nothing.
/// Accuracy max is exact. mean is within kPoolingForwardTolerance of the oracle for |x| ≤ 1 and
///          T ≤ 1024: one sum in order of t, one division, one rounding to T. Equal bit for bit on
///          every device and for every number of threads.
/// Memory   reads Σ_b n[b] rows of x once, writes y (and chosen) once, needs no scratch.
/// Source   Collobert, Weston, Bottou, Karlen, Kavukcuoglu & Kuksa 2011, JMLR 12:2493, section
///          3.3.2 (max over time); Conneau, Kiela, Schwenk, Barrault & Bordes 2017,
///          arXiv:1705.02364, section 3.2 (mean and max over the states of an LSTM).
template <class T>
struct PoolingForward {
  View<const T, 3> x;                    ///< [T, B, H]
  View<const std::int32_t, 1> length{};  ///< [B]       time steps of each row; absent: T each
  Pooling kind = Pooling::mean;
  View<T, 2> y;                    ///< [B, H] out
  View<std::int32_t, 2> chosen{};  ///< [B, H] out: the step of the maximum; absent for mean
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradient, given d_y = ∂L/∂y and the forward pass's length and chosen:
///
///     mean:  d_x[t,b,h] (+)= [t < n[b]] · d_y[b,h] / n[b]
///     max:   d_x[t,b,h] (+)= [t < n[b] and t = chosen[b,h]] · d_y[b,h]
///
/// Values   the bracket selects, so that a NaN in d_y reaches the steps above and no others. Padding
///          becomes 0; when accumulating, it is neither read nor written.
/// Errors   as the forward pass.
/// Accuracy within kPoolingBackwardTolerance of the oracle for |d_y| ≤ 1: one division, one sum when
///          accumulating, one rounding to T. Equal bit for bit on every device.
/// Memory   reads d_y (and chosen) once, writes d_x once; when accumulating, reads and writes
///          Σ_b n[b] rows of it. Needs no scratch.
template <class T>
struct PoolingBackward {
  View<const T, 2> d_y;                  ///< [B, H]
  View<const std::int32_t, 1> length{};  ///< [B] as in the forward pass
  Pooling kind = Pooling::mean;
  View<const std::int32_t, 2> chosen{};  ///< [B, H] as the forward pass wrote it; absent for mean
  Gradient<T, 3> d_x;                    ///< [T, B, H] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// n[row]: how many of `steps` time steps a row has.
constexpr std::int64_t pooled_steps(View<const std::int32_t, 1> length, std::int64_t row,
                                    std::int64_t steps) {
  if (!length.present()) return steps;
  const std::int64_t own = length(row);
  return own < 0 ? 0 : own < steps ? own : steps;
}

/// Whether `x` takes the place of the largest value so far, whose step is earlier.
template <class A>
constexpr bool exceeds(A x, A largest) {
  return !(x <= largest) && largest == largest;  // a NaN exceeds all, and nothing exceeds a NaN
}

inline constexpr Tolerances kPoolingForwardTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.281},
    .bf16 = {.absolute = 1e-6, .relative = 0x1p-8, .worst = 0.996}};
inline constexpr Tolerances kPoolingBackwardTolerance{
    .f32 = {.absolute = 1e-7, .relative = 1e-7, .worst = 0.299},
    .bf16 = {.absolute = 1e-7, .relative = 0x1p-8, .worst = 0.997}};

}  // namespace carousel
