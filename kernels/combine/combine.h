#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/view.h"

namespace carousel {

/// Copies neighbouring columns of one matrix to another, or adds them: two of these concatenate two
/// matrices, and give each its part of the gradient.
///
///     to[n, first_to + i] (+)= from[n, first_from + i],    0 ≤ i < width
///
/// Values   all other columns of `to` are left. NaN stays NaN.
/// Errors   ShapeError if the rows disagree or the columns are not those of the matrix. N == 0 or
///          width == 0 does nothing.
/// Accuracy exact: a copy, or when accumulating the sum in float, rounded once to T. Equal bit for
///          bit on every device.
/// Memory   reads N·width of `from` once, writes as many of `to` once (reads them first when
///          accumulating). `from` and `to` may not overlap.
template <class T>
struct CopyColumns {
  View<const T, 2> from;        ///< [N, F]
  std::int64_t first_from = 0;  ///< the first column read
  Gradient<T, 2> to;            ///< [N, G] out
  std::int64_t first_to = 0;    ///< the first column written
  std::int64_t width = 0;       ///< how many columns
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The sum of two tensors: y[n] = a[n] + b[n].
///
/// Errors   ShapeError if the extents disagree. N == 0 does nothing.
/// Accuracy exact: the sum in float, rounded once to T. Equal bit for bit on every device.
/// Memory   reads a and b once, writes y once. a may be b.
/// Source   He, Zhang, Ren & Sun 2016, arXiv:1512.03385, section 3.2 (residual connections).
template <class T>
struct Add {
  View<const T, 1> a;  ///< [N]
  View<const T, 1> b;  ///< [N]
  View<T, 1> y;        ///< [N] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
