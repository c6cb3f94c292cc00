#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/memory.h"
#include "tests/support/buffer.h"

namespace carousel::test {

/// Fills memory with uniform numbers in [−bound, bound]; a million of them repeat. They differ because
/// products of equal numbers need less power, and a GPU then runs faster.
template <class T>
void fill_uniform(const Device& device, T* data, std::size_t count, double bound = 1) {
  constexpr std::size_t kPeriod = 1'000'003;
  std::minstd_rand random(7);
  std::vector<T> values(std::min(count, kPeriod));
  for (T& v : values) {
    v = static_cast<T>(bound * (2 * static_cast<double>(random()) / std::minstd_rand::max() - 1));
  }
  for (std::size_t i = 0; i < count; i += values.size()) {
    const std::size_t part = std::min(values.size(), count - i);
    copy_to_device(device, data + i, values.data(), part * sizeof(T));
  }
}

template <class T>
Buffer<T> uniform(const Device& device, std::int64_t count, double bound = 1) {
  Buffer<T> buffer(device, static_cast<std::size_t>(count));
  fill_uniform(device, buffer.view(count).data, static_cast<std::size_t>(count), bound);
  return buffer;
}

}  // namespace carousel::test
