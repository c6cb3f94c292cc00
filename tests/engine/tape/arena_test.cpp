#include <gtest/gtest.h>

#include <vector>

#include "engine/tape/tensor.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using Addresses = std::vector<const void*>;

/// Tensors of so many bytes each, after a reset.
Addresses tensors(Arena& arena, const std::vector<std::int64_t>& bytes) {
  arena.reset();
  Addresses result;
  for (const std::int64_t count : bytes) {
    result.push_back(arena.tensor({count / 4}, DType::f32).data());
  }
  return result;
}

TEST(Arena, EqualRequestsGetEqualAddressesWhateverComesBetween) {
  constexpr std::int64_t kMega = 1 << 20;
  const std::vector<std::vector<std::int64_t>> steps{
      {1000, 3 * kMega, 200'000, 2 * kMega, 1000, 250'000},  // large and small, in mixed order
      {5 * kMega, 100, 2 * kMega, 2 * kMega, 200'000, 200'000, 200'000, 200'000, 200'000, 200'000},
      {0, 300'000, 4, 4},
      {7 * kMega, 6 * kMega, 8 * kMega}};
  for (const Device& device : test::devices()) {
    Arena arena(device);
    std::vector<Addresses> first;
    for (const auto& step : steps) first.push_back(tensors(arena, step));
    const std::size_t reserved = arena.reserved(), allocations = memory_use(device).allocations;
    for (const std::size_t i : {0U, 2U, 1U, 3U, 3U, 0U, 1U, 0U, 2U}) {
      EXPECT_EQ(tensors(arena, steps[i]), first[i]) << test::device_name(device) << " " << i;
    }
    EXPECT_EQ(arena.reserved(), reserved);
    EXPECT_EQ(memory_use(device).allocations, allocations);
  }
}

}  // namespace
}  // namespace carousel
