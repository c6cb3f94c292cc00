#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/reduce/reduce.h"

namespace carousel {

std::int64_t column_sum_groups(std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kBlocks = 264;  // two for each multiprocessor of an H100
  constexpr std::int64_t kTile = 256, kFewestRows = 32;
  const std::int64_t tiles = std::max<std::int64_t>(1, (columns + kTile - 1) / kTile);
  return std::max<std::int64_t>(1, std::min(kBlocks / tiles, rows / kFewestRows));
}

std::int64_t column_sum_scratch(std::int64_t rows, std::int64_t columns) {
  const std::int64_t groups = column_sum_groups(rows, columns);
  return groups == 1 ? 0 : groups * columns;
}

template <class T>
void ColumnSum<T>::check() const {
  expect_extent("reduce: length of the column sum", sum.view.extent[0], x.extent[1]);
}

// A thread sums whole columns, so that the order does not depend on how many threads there are; a
// strip of columns at a time stays in registers and the first-level cache. Sums of 64 rows are
// added to one another, which keeps the rounding error of long sums small.
template <class T>
void ColumnSum<T>::run(const Cpu&) const {
  using Acc = Accumulator<T>;
  constexpr std::int64_t kStrip = 128, kRows = 64, kParallelElements = 32 * 1024;
  const auto [rows, columns] = x.extent;
#pragma omp parallel for schedule(static) if (x.size() >= kParallelElements)
  for (std::int64_t strip = 0; strip < columns; strip += kStrip) {
    const std::int64_t width = std::min(kStrip, columns - strip);
    std::array<Acc, kStrip> total{}, part;
    for (std::int64_t first = 0; first < rows; first += kRows) {
      part.fill(0);
      for (std::int64_t n = first; n < std::min(first + kRows, rows); ++n) {
        const T* const row = x.data + n * columns + strip;
#pragma omp simd
        for (std::int64_t c = 0; c < width; ++c) {
          if constexpr (std::is_same_v<T, bf16>) {
            part[static_cast<std::size_t>(c)] += bf16::widened(row[c].bits);
          } else {
            part[static_cast<std::size_t>(c)] += row[c];
          }
        }
      }
      for (std::size_t c = 0; c < part.size(); ++c) total[c] += part[c];
    }
    Acc* const out = sum.view.data + strip;
    for (std::int64_t c = 0; c < width; ++c) {
      out[c] = total[static_cast<std::size_t>(c)] + (sum.accumulate ? out[c] : Acc{0});
    }
  }
}

template struct ColumnSum<float>;
template struct ColumnSum<bf16>;
template struct ColumnSum<double>;

}  // namespace carousel
