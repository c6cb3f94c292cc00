#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/common/bf16.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/cross_entropy/row.h"

// Sums over the columns of a matrix, for ops that normalize its rows, on the CPU.
namespace carousel::row_sum {

/// A row in the type that is computed with: itself, or copied to `buffer`.
template <class T>
const Accumulator<T>* widened(const T* row, std::int64_t count,
                              std::vector<Accumulator<T>>& buffer) {
  if constexpr (std::is_same_v<T, Accumulator<T>>) {
    return row;
  } else {
    Accumulator<T>* const to = buffer.data();
    for (std::int64_t c = 0; c < count; ++c) to[c] = static_cast<Accumulator<T>>(row[c]);
    return to;
  }
}

/// Σ a(c)·b(c) over [0, columns) in the lanes of row.h, each product fused: rounded alike in every
/// build.
template <class Acc, class A, class B>
Acc sum(std::int64_t columns, const A& a, const B& b) {
  row::Block<Acc> lanes{};
  std::int64_t first = 0;
  for (; first + row::kLanes <= columns; first += row::kLanes) {
#pragma omp simd
    for (int l = 0; l < row::kLanes; ++l) {
      lanes.lane[l] = std::fma(a(first + l), b(first + l), lanes.lane[l]);
    }
  }
  for (int l = 0; first + l < columns; ++l) {
    lanes.lane[l] = std::fma(a(first + l), b(first + l), lanes.lane[l]);
  }
  return row::total(lanes);
}

/// Calls body(n, x, d) for each row, on all threads; x and d are buffers of a row.
template <class Acc, class Body>
void for_rows(std::int64_t rows, std::int64_t columns, const Body& body) {
#pragma omp parallel if (rows * columns > kCpuChunk)
  {
    std::vector<Acc> x(static_cast<std::size_t>(columns)), d(static_cast<std::size_t>(columns));
#pragma omp for schedule(static)
    for (std::int64_t n = 0; n < rows; ++n) body(n, x, d);
  }
}

}  // namespace carousel::row_sum
