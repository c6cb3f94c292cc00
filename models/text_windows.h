#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/tape/tape.h"

namespace carousel {

/// Windows of limited length over the rows of a batch [T, B], for a model that sees no further.
struct TextWindows {
  std::int64_t steps = 0, count = 0;  ///< the longest, and how many there are
  std::vector<std::int32_t> from{};  ///< [steps, count] a token's place in [T, B]; 0 beyond the end
  std::vector<std::int32_t> to{};    ///< [T, B] where its hidden units lie in [steps, count]
};

/// Texts begin at the first step and where reset [T·B] (or nothing) is not 0. In a text, windows of at
/// most `longest` steps begin every `stride` steps; a token's place is in the first window that has
/// it. 1 ≤ stride ≤ longest.
TextWindows text_windows(std::int64_t T, std::int64_t B, std::span<const std::int32_t> reset,
                         std::int64_t longest, std::int64_t stride);

/// Rows of `from` [N, …], N < 2³¹, by their numbers: a tensor of `shape` on the tape.
Tensor gathered_rows(Tape& tape, const Tensor& from, const std::vector<std::int32_t>& rows,
                     const Shape& shape);

}  // namespace carousel
