#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/common/view.h"

namespace carousel {

/// Draws from any distribution over V words in constant time: column v of the table keeps a draw
/// with probability threshold[v] / 2³² and passes it on to word alias[v] otherwise.
///
///     column = ⌊word₀·V / 2³²⌋
///     draw   = column if word₁ < threshold[column], else alias[column]
///
/// for two random words of 32 bits. Integers alone, so a draw is the same on every device bit for
/// bit. A word's probability is that of its weight within V·2⁻³² of itself plus 2⁻³².
/// Source   Walker 1977, ACM TOMS 3(3):253, the method; Vose 1991, IEEE TSE 17(9):972, the table in
///          linear time.
struct AliasTable {
  /// [V] threshold · 2³² + alias: a column is one load, and the table a tensor of i64.
  View<const std::int64_t, 1> columns{};

  constexpr bool present() const { return columns.present(); }

  /// V > 0; nothing is checked.
  constexpr std::int32_t draw(std::uint32_t word0, std::uint32_t word1) const {
    const auto count = static_cast<std::uint64_t>(columns.extent[0]);
    const std::uint64_t column = (word0 * count) >> 32U;
    const auto entry = static_cast<std::uint64_t>(columns.data[column]);
    const auto threshold = static_cast<std::uint32_t>(entry >> 32U);
    return static_cast<std::int32_t>(word1 < threshold ? column : entry & 0xFFFFFFFFU);
  }
};

/// The columns of the table for words drawn in proportion to their weights, [V]. ConfigError unless
/// V is in [1, 2³¹), all weights are finite and not negative, and one of them is positive; a word of
/// weight 0 is never drawn.
std::vector<std::int64_t> alias_columns(std::span<const double> weight);

}  // namespace carousel
