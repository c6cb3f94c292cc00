#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "kernels/common/random.h"

namespace carousel {

/// Numbers drawn one after another from a source at one step.
class Draws {
 public:
  Draws(const RandomSource& source, std::int64_t step) : source_(source), step_(step) {}

  /// Uniform among 0 … n − 1.
  std::int64_t below(std::int64_t n) {
    const auto range = static_cast<std::uint64_t>(n);
    // Values from the last, incomplete repetition of the range would favour its beginning.
    const std::uint64_t limit = std::numeric_limits<std::uint64_t>::max() / range * range;
    std::uint64_t bits = next();
    while (bits >= limit) bits = next();
    return static_cast<std::int64_t>(bits % range);
  }

 private:
  std::uint64_t next() {
    const auto words = source_.words(block_++, step_);
    return std::uint64_t{words[0]} << 32 | words[1];
  }
  RandomSource source_;
  std::int64_t step_;
  std::uint64_t block_ = 0;
};

/// Fisher and Yates's shuffle, in Durstenfeld's form (1964, CACM 7:420, algorithm 235).
template <class T>
void shuffle(std::span<T> items, Draws& draws) {
  for (std::size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1],
              items[static_cast<std::size_t>(draws.below(static_cast<std::int64_t>(i)))]);
  }
}

}  // namespace carousel
