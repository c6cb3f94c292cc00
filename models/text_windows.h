#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/tape/tape.h"

namespace carousel {

/// Windows of limited length over texts in a batch [T, B], for a model that sees no further. They are
/// read in groups. With `place`, a group's shape depends on the length of its windows alone: the same
/// products give a line's values, whatever lies beside it.
struct TextWindows {
  struct Group {
    std::int64_t steps = 0, count = 0;  ///< S, a power of two or the longest; windows
    std::vector<std::int32_t> from{};   ///< [S, count] a token's place in [T, B]; 0 beyond the end
    std::int64_t places() const { return steps * count; }
  };
  std::vector<Group> groups{};
  std::int64_t places = 0;  ///< of all groups
  /// [T, B] where a token's hidden units lie in those of all groups, which follow one another; 0 of
  /// what is in no text.
  std::vector<std::int32_t> to{};
};

/// The rows of a batch. Texts begin at step 0 and where `reset` is not 0.
struct BatchTexts {
  std::int64_t steps = 0, rows = 0;       ///< T, B
  std::span<const std::int32_t> reset{};  ///< [T, B] may be empty
  std::span<const std::int64_t> place{};  ///< [T, B] below 0 where there is no text; may be empty
};
/// In a text, windows of at most `longest` steps begin every `stride` steps; a token's place is in the
/// first window that has it. 1 ≤ stride ≤ longest.
TextWindows text_windows(const BatchTexts& texts, std::int64_t longest, std::int64_t stride);

/// Rows of `from` [N, …], N < 2³¹, by their numbers: a tensor of `shape` on the tape.
Tensor gathered_rows(Tape& tape, const Tensor& from, const std::vector<std::int32_t>& rows,
                     const Shape& shape);

}  // namespace carousel
