#pragma once

#include <omp.h>

#include <cstdint>
#include <string>

#include "kernels/common/journal.h"

namespace carousel {

/// How a recurrence on the CPU divides the rows of a batch into slices. A slice goes through the
/// whole sequence by itself. With many rows each thread has slices of its own: no thread waits
/// between steps, and the data of a step stays in the thread's cache. With few rows there is one
/// slice, and all threads share the product of every step.
struct BatchSlices {
  std::int64_t batch = 0, count = 1;

  explicit BatchSlices(std::int64_t rows) : batch(rows) {
    constexpr std::int64_t kLeastRows = 8;  // a product with fewer runs well below full speed
    constexpr std::int64_t kMostRows = 16;
    const std::int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
    if (rows < kLeastRows * threads) return;
    const std::int64_t per_round = threads * kMostRows;
    count = threads * ((rows + per_round - 1) / per_round);
  }
  /// Notes the slices in the journal, which sees the products of its own thread only.
  void note() const {
    if (Journal* const journal = Journal::mine(); journal != nullptr && count > 1) {
      journal->note("rows in " + std::to_string(count) + " slices of at most " +
                    std::to_string(most_rows()) +
                    ", each alone through all steps; the products of the first thread's follow");
    }
  }
  std::int64_t most_rows() const { return (batch + count - 1) / count; }
  std::int64_t first(std::int64_t slice) const { return batch * slice / count; }

  /// Calls f(first row, one past the last) for every slice.
  template <class F>
  void for_each(const F& f) const {
    if (count == 1) return f(std::int64_t{0}, batch);
#pragma omp parallel for schedule(static)
    for (std::int64_t s = 0; s < count; ++s) f(first(s), first(s + 1));
  }
};

/// Calls f(row) for the rows of a slice, on several threads if there is enough work and no other
/// slice uses them. `width` is the number of units of a row, each worth tens of operations.
template <class F>
void for_rows(std::int64_t first, std::int64_t last, std::int64_t width, const F& f) {
  constexpr std::int64_t kParallelUnits = 8 * 1024;
  if (omp_in_parallel() || (last - first) * width < kParallelUnits) {
    for (std::int64_t row = first; row < last; ++row) f(row);
    return;
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t row = first; row < last; ++row) f(row);
}

}  // namespace carousel
