#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/device.h"

namespace carousel {

/// Queues a stable sort by key of `count` pairs on the device, keys compared as unsigned numbers
/// of their low `bits` bits. `scratch` holds sort_scratch_bytes(count). The four arrays are
/// distinct. sort_cub.cu implements it; for the emulated device tests/emulation/libraries/sort.cpp.
struct SortPairs {
  const std::uint32_t* keys_in = nullptr;
  const std::int32_t* values_in = nullptr;
  std::uint32_t* keys_out = nullptr;
  std::int32_t* values_out = nullptr;
  std::int64_t count = 0;
  int bits = 32;
  void* scratch = nullptr;
};
std::size_t sort_scratch_bytes(const Cuda& device, std::int64_t count);
void sort_pairs(const Cuda& device, const SortPairs& sort);

/// Queues out[i] = in[0] + … + in[i] on the device. `scratch` holds
/// running_sum_scratch_bytes(count). The arrays are distinct. Implemented in the same files.
struct RunningSum {
  const std::int32_t* in = nullptr;
  std::int32_t* out = nullptr;
  std::int64_t count = 0;
  void* scratch = nullptr;
};
std::size_t running_sum_scratch_bytes(const Cuda& device, std::int64_t count);
void running_sum(const Cuda& device, const RunningSum& sum);

}  // namespace carousel
