#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// The sum of each column: the gradient of a bias that was added to every row.
///
///     sum[c] = Σ_n x[n,c]   (+ sum[c] if it accumulates)
///
/// Values   NaN and infinity spread as arithmetic says. sum may hold anything unless added to.
/// Errors   ShapeError if the extents disagree. N == 0 is the empty sum, 0.
/// Accuracy within kColumnSumTolerance of the exact sum of the stored values for |x| ≤ 1 and
///          N ≤ 4096. Sums are float (double for double), in an order fixed by the extents: repeats
///          bit for bit, whatever the number of threads.
/// Memory   reads x once; scratch holds column_sum_scratch(N, C) accumulators and need not be there
///          if that is 0, or on the CPU.
template <class T>
struct ColumnSum {
  View<const T, 2> x;               ///< [N, C]
  Gradient<Accumulator<T>, 1> sum;  ///< [C] out
  View<Accumulator<T>, 1> scratch{};
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Into how many groups of rows CUDA splits a sum of [rows, columns], so that a narrow matrix, too,
/// keeps a large GPU's multiprocessors busy. A function of the extents alone, for repeatability.
std::int64_t column_sum_groups(std::int64_t rows, std::int64_t columns);

/// How many accumulators of scratch memory that takes: at most 67,584.
std::int64_t column_sum_scratch(std::int64_t rows, std::int64_t columns);

inline constexpr Tolerances kColumnSumTolerance{
    .f32 = {.absolute = 1e-5, .relative = 2e-6, .worst = 0.67},
    .bf16 = {.absolute = 3e-6, .relative = 1e-6, .worst = 0.16}};

}  // namespace carousel
