#pragma once

#include <array>
#include <cstdint>

#include "kernels/common/view.h"

namespace carousel {

/// Philox 4×32 with ten rounds: 128 random bits as a pure function of a counter and a key.
/// Source   Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
///          SC'11, section 4.3 and table 2 (multipliers, Weyl constants, ten rounds).
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                              std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

/// A source of random numbers for one op at one place of a model: a function of {seed, stream,
/// step, element}, equal on every device bit for bit. `step` counts optimiser steps; it is in
/// device memory, so that a CUDA graph draws other numbers at each launch.
struct RandomSource {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;            ///< distinguishes the draws of one step from one another
  View<const std::int64_t, 1> step{};  ///< [1] on the device

  constexpr std::array<std::uint32_t, 2> key() const {
    // SplitMix64's finaliser, so that neighbouring seeds and streams give unrelated keys.
    std::uint64_t z = seed + stream * 0x9E3779B97F4A7C15U + 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    z ^= z >> 31;
    return {static_cast<std::uint32_t>(z), static_cast<std::uint32_t>(z >> 32)};
  }

  /// Four words, for elements 4·block … 4·block + 3 of this source at step `at_step`.
  constexpr std::array<std::uint32_t, 4> words(std::uint64_t block, std::int64_t at_step) const {
    const auto s = static_cast<std::uint64_t>(at_step);
    return philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                   static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(s >> 32)},
                  key());
  }
};

/// Uniform in [0, 1), a multiple of 2⁻²⁴.
constexpr float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1.0p-24F; }

}  // namespace carousel
