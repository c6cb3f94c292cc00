#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/common/view.h"

// Sums over the rows of a matrix, one or several for each column, on the CPU: for ColumnSum and for ops
// whose terms are not stored anywhere.
namespace carousel::column_sum {

/// Columns that a thread sums at a time: they stay in registers and the first-level cache.
inline constexpr std::int64_t kStrip = 128;

template <class Acc>
using Strip = std::array<Acc, static_cast<std::size_t>(kStrip)>;

/// Sums the rows. `add(n, first, width, part)` adds row n's terms of the columns first … first + width −
/// 1 to part[sum][0 … width − 1]; absent sums are not written. A thread sums whole columns, so that the
/// order does not depend on how many threads there are. Sums of 64 rows are added to one another,
/// which keeps the rounding error of long sums small.
template <std::size_t kSums, class Acc, class Add>
void sum_columns(std::int64_t rows, std::int64_t columns,
                 const std::array<Gradient<Acc, 1>, kSums>& sums, const Add& add) {
  constexpr std::int64_t kRows = 64, kParallelElements = 32 * 1024;
#pragma omp parallel for schedule(static) if (rows * columns >= kParallelElements)
  for (std::int64_t strip = 0; strip < columns; strip += kStrip) {
    const std::int64_t width = std::min(kStrip, columns - strip);
    std::array<Strip<Acc>, kSums> total{}, part;
    for (std::int64_t first = 0; first < rows; first += kRows) {
      part = {};
      for (std::int64_t n = first; n < std::min(first + kRows, rows); ++n) {
        add(n, strip, width, part);
      }
      for (std::size_t s = 0; s < kSums; ++s) {
        for (std::size_t c = 0; c < part[s].size(); ++c) total[s][c] += part[s][c];
      }
    }
    for (std::size_t s = 0; s < kSums; ++s) {
      if (!sums[s].present()) continue;
      Acc* const out = sums[s].view.data + strip;
      for (std::int64_t c = 0; c < width; ++c) {
        out[c] = total[s][static_cast<std::size_t>(c)] + (sums[s].accumulate ? out[c] : Acc{0});
      }
    }
  }
}

}  // namespace carousel::column_sum
