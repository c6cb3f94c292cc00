#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// Adds what stands for its position to each token's embedding, a row of a learnt table or a sinusoid:
///
///     y[t,b,e] = scale·x[t,b,e] + p[n,e],    n = offset[b] + t
///     p = table, or without one: p[n,2i] = sin(n·10⁴^(−2i/E)), p[n,2i+1] = cos(n·10⁴^(−2i/E))
///
/// Values   an absent offset is 0. A position that the table lacks gives a row of NaN.
/// Errors   ShapeError if the extents disagree. T == 0, B == 0 or E == 0 does nothing.
/// Accuracy within kPositionEmbeddingTolerance for |x| ≤ 1, |scale| ≤ 32 and positions up to 2²⁴:
///          angles are reduced in double.
/// Memory   reads x once, and T rows of the table (with an offset B·T); writes y once. y may be x.
/// Source   Vaswani et al. 2017, arXiv:1706.03762, section 3.5; scale = √E: section 3.4.
template <class T>
struct PositionEmbeddingForward {
  View<const T, 3> x;                    ///< [T, B, E]
  View<const T, 2> table{};              ///< [P, E]
  View<const std::int64_t, 1> offset{};  ///< [B] positions before the first step
  float scale = 1;
  View<T, 3> y;  ///< [T, B, E] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradients, given d_y = ∂L/∂y, without an offset:
///
///     d_x (+)= scale·d_y,    d_table[n] (+)= Σ_b d_y[n,b] for n < T, 0 for n ≥ T
///
/// Values   those that are absent are not computed. NaN and infinity spread as arithmetic says.
/// Errors   ShapeError if the extents disagree or the table has fewer than T rows.
/// Accuracy within kPositionEmbeddingTolerance for |d_y| ≤ 1 and B ≤ 64. Sums are in order of b, the
///          same for every number of threads.
/// Memory   reads d_y once for each of the two, writes d_x and d_table once.
template <class T>
struct PositionEmbeddingBackward {
  View<const T, 3> d_y;                   ///< [T, B, E]
  float scale = 1;                        ///< as in the forward pass
  Gradient<T, 3> d_x{};                   ///< [T, B, E] out
  Gradient<Accumulator<T>, 2> d_table{};  ///< [P, E] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Moves each row's position on by what it has read: after[b] = before[b] + length[b].
///
/// Values   a length is taken as between 0 and `steps`; absent lengths are `steps`.
/// Errors   ShapeError if the extents disagree or steps < 0. B == 0 does nothing.
/// Memory   reads and writes B numbers. `after` may be `before`.
struct AdvancePositions {
  View<const std::int64_t, 1> before;    ///< [B]
  View<const std::int32_t, 1> length{};  ///< [B] of `steps` steps
  std::int64_t steps = 0;
  View<std::int64_t, 1> after;  ///< [B] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  constexpr std::int64_t moved(std::int64_t b) const {
    if (!length.present()) return before(b) + steps;
    const std::int64_t some = length(b) < 0 ? 0 : length(b);
    return before(b) + (some < steps ? some : steps);
  }
};

inline constexpr Tolerances kPositionEmbeddingTolerance{
    .f32 = {.absolute = 2e-6, .relative = 1e-6, .worst = 0.5},
    .bf16 = {.absolute = 1e-6, .relative = 0x1p-8, .worst = 1}};

}  // namespace carousel
