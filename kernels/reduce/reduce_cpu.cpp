#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/reduce/column_sum.h"
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

template <class T>
void ColumnSum<T>::run(const Cpu&) const {
  using Acc = Accumulator<T>;
  const std::int64_t columns = x.extent[1];
  column_sum::sum_columns<1, Acc>(
      x.extent[0], columns, {sum},
      [&](std::int64_t n, std::int64_t first, std::int64_t width, auto& part) {
        const T* const row = x.data + n * columns + first;
        Acc* const sums = part[0].data();
#pragma omp simd
        for (std::int64_t c = 0; c < width; ++c) {
          if constexpr (std::is_same_v<T, bf16>) {
            sums[c] += bf16::widened(row[c].bits);
          } else {
            sums[c] += row[c];
          }
        }
      });
}

template struct ColumnSum<float>;
template struct ColumnSum<bf16>;
template struct ColumnSum<double>;

}  // namespace carousel
