#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/sample/sample.h"

/// The arithmetic of `sample`, for both of its paths: the weight of a token as an integer, and the
/// search for the place where tokens taken in some order reach a given sum.
///
/// That search is a radix search. Tokens are distributed over bins by the leading part of the key
/// they are ordered by; the bin in which the sum is reached is the only one that is looked at
/// again, by the next part of the key. A bin holds a sum of integers, so it does not matter in
/// which order tokens arrive there.
namespace carousel::sampling {

using Weight = unsigned long long;  // the 64-bit integer CUDA's atomics know

/// How far a logit lies below the row's largest, in octaves (halvings of the weight), in units of
/// 2⁻²⁵; kFarthest for all that is 48 octaves or more.
inline constexpr int kOctave = 25;
inline constexpr std::uint32_t kFarthest = 48U << kOctave;

/// Units of distance per unit of logit. At most the largest float: a distance of 0 stays 0.
constexpr float distance_scale(float temperature) {
  const double scale = 1.4426950408889634 / static_cast<double>(temperature) * (1 << kOctave);
  constexpr float kMost = std::numeric_limits<float>::max();
  return scale < static_cast<double>(kMost) ? static_cast<float>(scale) : kMost;
}

/// A difference and a product, each rounded to float: no compiler may fuse them.
constexpr std::uint32_t distance(float largest, float logit, float scale) {
  const float d = (largest - logit) * scale;
  return d < static_cast<float>(kFarthest) ? static_cast<std::uint32_t>(d) : kFarthest;
}

/// 2⁴⁰ at distance 0, half of it an octave further; 0 from 41 octaves on. Rows of 2²² tokens
/// cannot overflow a sum. The fraction's power of two is the Taylor series of 2^(−x), x in [0, 1),
/// nested so that every partial result is positive: c₀ − x·(c₁ − x·(c₂ − …)), with
/// c_k = (ln 2)ᵏ / k! in units of 2⁻³¹. Its relative error is below 10⁻⁸.
constexpr Weight weight(std::uint32_t distance) {
  constexpr int kDegree = 10;
  constexpr auto kCoefficient = [] {
    std::array<std::uint32_t, kDegree + 1> c{};
    double exact = 2147483648.0;
    for (int k = 0; k <= kDegree; ++k) {
      c[static_cast<std::size_t>(k)] = static_cast<std::uint32_t>(exact + 0.5);
      exact *= 0.6931471805599453 / (k + 1);
    }
    return c;
  }();
  const std::uint64_t x = (distance << (32 - kOctave)) & 0xFFFFFFFFU;  // in units of 2⁻³²
  std::uint64_t sum = kCoefficient[kDegree];
  for (int k = kDegree - 1; k >= 0; --k) {
    sum = kCoefficient[static_cast<std::size_t>(k)] - ((x * sum) >> 32);
  }
  return (sum << 9) >> (distance >> kOctave);
}

/// A number that is larger the more a token is preferred: its logit's bits, made to compare as the
/// numbers do (with −0 as 0), and below them its index, the lower the better.
inline constexpr int kIndexBits = 24;
constexpr std::uint64_t preference(float logit, std::int64_t index) {
  const auto bits = std::bit_cast<std::uint32_t>(logit + 0.0F);
  const std::uint32_t ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
  constexpr std::uint64_t kIndexMask = (1U << kIndexBits) - 1;
  return std::uint64_t{ordered} << kIndexBits | (kIndexMask - static_cast<std::uint64_t>(index));
}
constexpr std::int64_t index_of(std::uint64_t preference) {
  constexpr std::uint64_t kIndexMask = (1U << kIndexBits) - 1;
  return static_cast<std::int64_t>(kIndexMask - (preference & kIndexMask));
}

/// The logit of a preference, with −0 as 0.
constexpr float logit_of(std::uint64_t preference) {
  const auto ordered = static_cast<std::uint32_t>(preference >> kIndexBits);
  return std::bit_cast<float>((ordered >> 31) != 0 ? ordered & 0x7FFFFFFFU : ~ordered);
}

inline constexpr int kBins = 2048;

/// The bin in which a running sum over bins 0, 1, … reaches what is needed.
struct Found {
  int bin = 0;
  Weight before = 0;     ///< sum of the bins before it
  Weight inside = 0;     ///< sum of this one
  Weight total = 0;      ///< sum of all bins
  unsigned tokens = 0;   ///< how many are in this one
  unsigned through = 0;  ///< how many are in this one and those before it; CUDA's
};

/// The set of the most preferred tokens, down to some token. Made in stages: first by the coarse
/// distance, in 1/32 octave, which spreads a row's tokens well over the bins (the leading bits of a
/// float do not); then by the preference, a byte at a time.
struct Cut {
  static constexpr int kCoarse = kOctave - 5;
  static constexpr int kStages = 1 + (32 + kIndexBits) / 8;

  std::uint32_t last = kFarthest >> kCoarse;  ///< coarse distance of the last tokens kept
  std::uint64_t mask = 0, prefix = 0;         ///< what was decided of their preference so far

  constexpr bool keeps(std::uint32_t distance, std::uint64_t preference) const {
    const std::uint32_t coarse = distance >> kCoarse;
    return coarse < last || (coarse == last && (preference & mask) >= prefix);
  }
  /// Whether a token can still be on either side of the cut, before stage `stage`.
  constexpr bool open(int stage, std::uint32_t distance, std::uint64_t preference) const {
    return stage == 0 || (distance >> kCoarse == last && (preference & mask) == prefix);
  }
  /// The token's bin at a stage; bin 0 is the most preferred.
  static constexpr int bin(int stage, std::uint32_t distance, std::uint64_t preference) {
    if (stage == 0) return static_cast<int>(distance >> kCoarse);
    return 255 - static_cast<int>((preference >> shift(stage)) & 255U);
  }
  /// Puts the cut behind the last token of bin `found`.
  constexpr void narrow(int stage, int found) {
    if (stage == 0) {
      last = static_cast<std::uint32_t>(found);
    } else {
      mask |= std::uint64_t{255} << shift(stage);
      prefix |= static_cast<std::uint64_t>(255 - found) << shift(stage);
    }
  }

 private:
  static constexpr int shift(int stage) { return 8 * (kStages - 1 - stage); }
};
static_assert((kFarthest >> Cut::kCoarse) < kBins);

/// ⌊total · fraction / 2³²⌋, for a fraction below 2³², without overflow.
constexpr Weight scaled(Weight total, std::uint32_t fraction) {
  return (total >> 32) * fraction + (((total & 0xFFFFFFFFU) * fraction) >> 32);
}

/// The sum that the tokens kept by top-p reach: ⌈top_p · total⌉, and at least 1; top_p below 1.
constexpr Weight needed_by_top_p(float top_p, Weight total) {
  const auto fraction = static_cast<std::uint32_t>(static_cast<double>(top_p) * 0x1p32);
  const bool is_whole = (((total & 0xFFFFFFFFU) * fraction) & 0xFFFFFFFFU) == 0;
  return std::max<Weight>(scaled(total, fraction) + (is_whole ? 0 : 1), 1);
}

/// Tokens per bin where bins are stretches of the vocabulary.
constexpr std::int64_t stretch(std::int64_t vocabulary) {
  const std::int64_t even = (vocabulary + kBins - 1) / kBins;
  return even < 512 ? 512 : (even + 31) / 32 * 32;
}
static_assert(stretch(Sample<float>::kMaxVocabulary) <= kBins);

}  // namespace carousel::sampling
