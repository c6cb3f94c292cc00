#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

/// One word of Philox 4×32-10 as the paper's figures state it: two 64-bit halves of the state
/// cross over, and the high half of each product is mixed with its neighbour and a round key that
/// is r Weyl steps from the first.
inline std::uint32_t philox_word(std::uint64_t counter_low, std::uint64_t counter_high,
                                 std::uint64_t key, unsigned word) {
  constexpr std::uint64_t kLow32 = 0xFFFFFFFFU;
  std::uint64_t left = counter_low, right = counter_high;
  for (std::uint64_t r = 0; r < 10; ++r) {
    const std::uint64_t key_left = ((key & kLow32) + r * 0x9E3779B9U) & kLow32;
    const std::uint64_t key_right = ((key >> 32) + r * 0xBB67AE85U) & kLow32;
    const std::uint64_t product_left = 0xD2511F53U * (left & kLow32);
    const std::uint64_t product_right = 0xCD9E8D57U * (right & kLow32);
    const std::uint64_t new_left = ((product_right >> 32) ^ (left >> 32) ^ key_left) & kLow32;
    const std::uint64_t new_right = ((product_left >> 32) ^ (right >> 32) ^ key_right) & kLow32;
    left = new_left | (product_right << 32);
    right = new_right | (product_left << 32);
  }
  const std::uint64_t half = word < 2 ? left : right;
  return static_cast<std::uint32_t>(word % 2 == 0 ? half : half >> 32);
}

/// The key of a source: the (stream + 1)-th output of the SplitMix64 generator started at `seed`.
inline std::uint64_t source_key(std::uint64_t seed, std::uint64_t stream) {
  std::uint64_t z = seed + (stream + 1) * 0x9E3779B97F4A7C15U;
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9U;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

struct Draw {
  std::uint64_t seed, stream;
  std::int64_t step;
};

/// 1 for an element that survives, 0 for one that is dropped.
inline double dropout_mask(const Draw& draw, std::uint64_t n, double drop_probability) {
  const std::uint32_t word =
      philox_word(n / 4, static_cast<std::uint64_t>(draw.step), source_key(draw.seed, draw.stream),
                  static_cast<unsigned>(n % 4));
  const double u = static_cast<double>(word / 256) / 16777216.0;
  return u < drop_probability ? 0.0 : 1.0;
}

/// y[n] = scale·mask[n mod period]·x[n], with the scale rounded to float: forward and, of d_y,
/// backward.
inline std::vector<double> dropout(const std::vector<double>& x, const Draw& draw,
                                   double drop_probability, std::size_t period) {
  const double scale =
      drop_probability == 1.0 ? 0.0 : static_cast<float>(1.0 / (1.0 - drop_probability));
  std::vector<double> y(x.size());
  for (std::size_t n = 0; n < x.size(); ++n) {
    y[n] = scale * dropout_mask(draw, n % period, drop_probability) * x[n];
  }
  return y;
}

}  // namespace carousel::reference
