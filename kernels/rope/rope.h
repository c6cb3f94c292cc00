#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// Which two columns of a head are turned together, for pair i of D / 2.
enum class RopePairs : std::uint8_t {
  halves,      ///< i and D / 2 + i: GPT-NeoX, Llama's published weights in PyTorch
  neighbours,  ///< 2·i and 2·i + 1: the paper
};

/// Turns pairs of columns of x by angles that grow with the position, so that the product of a query
/// and a key depends on how far apart they are ("rotary position embedding"):
///
///     y[t,b,i′] (+)= cos θ·x[t,b,i′] − sin θ·x[t,b,i″],    y[t,b,i″] (+)= sin θ·x[t,b,i′] + cos θ·x[t,b,i″]
///     θ = ±(offset[b] + t)·base^(−2i/D)
///
/// for pair (i′, i″) of each of the `heads` heads that lie from column `first` on, D columns each.
/// The other columns are copied (or added). With `inverse` θ is negative: as the rotation is
/// orthogonal, this is also the gradient, d_x from d_y.
///
/// Values   an absent offset is 0. NaN and infinity spread within their pair.
/// Errors   ShapeError if the extents disagree, D is odd or the heads are not columns of x;
///          ConfigError unless base > 1. T == 0, B == 0 or heads == 0 turns nothing.
/// Accuracy within kRopeTolerance for |x| ≤ 1 and positions up to 2²⁴: angles are reduced in double.
/// Memory   reads x once, writes y once (and reads it once when accumulating). y may be x itself
///          unless it accumulates.
/// Source   Su, Lu, Pan, Murtadha, Wen & Liu 2021, arXiv:2104.09864, section 3.2.2 and equation 34.
template <class T>
struct Rope {
  View<const T, 3> x;                      ///< [T, B, W]
  View<const std::int64_t, 1> offset{};    ///< [B] positions before the first step
  std::int64_t first = 0;                  ///< column of the first head
  std::int64_t heads = 1, head_width = 0;  ///< D
  double base = 10'000;
  RopePairs pairs = RopePairs::halves;
  bool inverse = false;
  Gradient<T, 3> y;  ///< [T, B, W] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

inline constexpr Tolerances kRopeTolerance{
    .f32 = {.absolute = 5e-7, .relative = 1e-7, .worst = 0.4},
    .bf16 = {.absolute = 5e-7, .relative = 0x1p-8, .worst = 1}};

}  // namespace carousel
