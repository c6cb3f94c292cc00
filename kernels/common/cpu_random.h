#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/common/random.h"

namespace carousel {

/// The words of kPhiloxLanes neighbouring elements at a time. Lanes of a vector are elements, not
/// words of one: ten rounds over arrays of counters are then plain loops. 64 lanes fill four to
/// sixteen vector registers' worth of independent work and stay in the first-level cache.
inline constexpr std::size_t kPhiloxLanes = 64;
using PhiloxLanes = std::array<std::uint32_t, kPhiloxLanes>;

/// What RandomSource::words(first + i, step) gives: word w of it in words[w][i].
template <std::size_t kCount>
void draw_lanes(const std::array<std::uint32_t, 2>& key, std::uint64_t first, std::int64_t step,
                std::array<std::array<std::uint32_t, kCount>, 4>& words) {
  auto& [c0, c1, c2, c3] = words;
  const auto s = static_cast<std::uint64_t>(step);
  for (std::size_t i = 0; i < kCount; ++i) {
    c0[i] = static_cast<std::uint32_t>(first + i);
    c1[i] = static_cast<std::uint32_t>((first + i) >> 32);
    c2[i] = static_cast<std::uint32_t>(s);
    c3[i] = static_cast<std::uint32_t>(s >> 32);
  }
  std::uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9U, k1 += 0xBB67AE85U) {
#pragma omp simd
    for (std::size_t i = 0; i < kCount; ++i) {
      const std::uint64_t a = std::uint64_t{0xD2511F53U} * c0[i];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * c2[i];
      c0[i] = static_cast<std::uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<std::uint32_t>(b);
      c2[i] = static_cast<std::uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<std::uint32_t>(a);
    }
  }
}

/// The least word >> 8 for which uniform(word) ≥ probability. (Signed, for vector code.)
inline std::int32_t uniform_threshold(float probability) {
  return static_cast<std::int32_t>(__builtin_ceilf(probability * 0x1p24F));
}

}  // namespace carousel
