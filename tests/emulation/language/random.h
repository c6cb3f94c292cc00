#pragma once

#include <cstdint>

namespace emulation {

// Marsaglia's xorshift64*. Global: there is one scheduler.
extern std::uint64_t random_state;

/// Uniform in [0, n), up to a bias of n / 2^32.
inline std::uint64_t random_below(std::uint64_t n) {
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return ((random_state * 0x2545F4914F6CDD1DU) >> 32) * n >> 32;
}

}  // namespace emulation
