#include "kernels/common/cuda/sort.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/common/journal.h"

// Implements kernels/common/cuda/sort.h on the emulated device.
namespace carousel {
namespace {

void sort_now(const SortPairs& sort) {
  const auto count = static_cast<std::size_t>(sort.count);
  const std::uint32_t mask = sort.bits >= 32 ? ~0U : (1U << sort.bits) - 1;
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return (sort.keys_in[a] & mask) < (sort.keys_in[b] & mask);
  });
  for (std::size_t i = 0; i < count; ++i) {
    sort.keys_out[i] = sort.keys_in[order[i]];
    sort.values_out[i] = sort.values_in[order[i]];
  }
}

}  // namespace

/// As large as CUB's: a second pair of arrays. All of it is written, so that scratch that is too
/// small is found.
std::size_t sort_scratch_bytes(const Cuda&, std::int64_t count) {
  return static_cast<std::size_t>(count) * (sizeof(std::uint32_t) + sizeof(std::int32_t));
}

void sort_pairs(const Cuda& device, const SortPairs& sort) {
  if (sort.count == 0) return;
  if (Journal* const journal = Journal::mine()) {
    journal->note("emulated sort of " + std::to_string(sort.count) + " pairs by " +
                  std::to_string(sort.bits) + " bits");
  }
  const std::size_t scratch_bytes = sort_scratch_bytes(device, sort.count);
  emulation::enqueue(device.stream(), [sort, scratch_bytes] {
    std::memset(sort.scratch, 0x5A, scratch_bytes);
    sort_now(sort);
  });
}

std::size_t running_sum_scratch_bytes(const Cuda&, std::int64_t count) {
  return count == 0 ? 0 : 256;
}

void running_sum(const Cuda& device, const RunningSum& sum) {
  if (sum.count == 0) return;
  if (Journal* const journal = Journal::mine()) {
    journal->note("emulated running sum of " + std::to_string(sum.count) + " numbers");
  }
  const std::size_t scratch_bytes = running_sum_scratch_bytes(device, sum.count);
  emulation::enqueue(device.stream(), [sum, scratch_bytes] {
    std::memset(sum.scratch, 0x5A, scratch_bytes);
    std::partial_sum(sum.in, sum.in + sum.count, sum.out);
  });
}

}  // namespace carousel
