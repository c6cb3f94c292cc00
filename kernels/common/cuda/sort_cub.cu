#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
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

void call_cub(const Cuda& device, const RunningSum& sum, void* scratch, std::size_t& bytes) {
  check_cuda(
      cub::DeviceScan::InclusiveSum(scratch, bytes, sum.in, sum.out, sum.count, device.stream()),
      "running sum");
}

/// Queues one call, with a line in the journal.
template <class Call>
void queue(const Cuda& device, const Call& call, std::size_t bytes, const std::string& what) {
  if (call.count == 0) return;
  if (Journal* const journal = Journal::mine()) journal->note("CUB's " + what);
  call_cub(device, call, call.scratch, bytes);
  if (device.context().synchronous) device.synchronize();
}

}  // namespace

std::size_t sort_scratch_bytes(const Cuda& device, std::int64_t count) {
  std::size_t bytes = 0;
  call_cub(device, SortPairs{.count = count}, nullptr, bytes);
  return bytes;
}

void sort_pairs(const Cuda& device, const SortPairs& sort) {
  queue(device, sort, sort_scratch_bytes(device, sort.count),
        "radix sort of " + std::to_string(sort.count) + " pairs by " + std::to_string(sort.bits) +
            " bits");
}

std::size_t running_sum_scratch_bytes(const Cuda& device, std::int64_t count) {
  std::size_t bytes = 0;
  call_cub(device, RunningSum{.count = count}, nullptr, bytes);
  return bytes;
}

void running_sum(const Cuda& device, const RunningSum& sum) {
  queue(device, sum, running_sum_scratch_bytes(device, sum.count),
        "running sum of " + std::to_string(sum.count) + " numbers");
}

}  // namespace carousel
