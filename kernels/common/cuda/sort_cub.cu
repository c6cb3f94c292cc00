#include <cub/device/device_radix_sort.cuh>
#include <string>

#include "kernels/common/cuda/context.cuh"
#include "kernels/common/cuda/sort.h"
#include "kernels/common/journal.h"

namespace carousel {
namespace {

/// CUB's function with two meanings: without scratch it returns how much it needs.
void call_cub(const Cuda& device, const SortPairs& sort, void* scratch, std::size_t& bytes) {
  check_cuda(
      cub::DeviceRadixSort::SortPairs(scratch, bytes, sort.keys_in, sort.keys_out, sort.values_in,
                                      sort.values_out, sort.count, 0, sort.bits, device.stream()),
      "sort");
}

}  // namespace

std::size_t sort_scratch_bytes(const Cuda& device, std::int64_t count) {
  std::size_t bytes = 0;
  call_cub(device, {.count = count}, nullptr, bytes);
  return bytes;
}

void sort_pairs(const Cuda& device, const SortPairs& sort) {
  if (sort.count == 0) return;
  if (Journal* const journal = Journal::mine()) {
    journal->note("CUB's radix sort of " + std::to_string(sort.count) + " pairs by " +
                  std::to_string(sort.bits) + " bits");
  }
  std::size_t bytes = sort_scratch_bytes(device, sort.count);
  call_cub(device, sort, sort.scratch, bytes);
  if (device.context().synchronous) device.synchronize();
}

}  // namespace carousel
