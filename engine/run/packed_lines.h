#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace carousel {

/// The ids of a line: what LineEncoder gives.
using LineIds = std::vector<std::int32_t>;

/// Lines to be read in batches of one shape, one after another.
struct PackedLines {
  std::int64_t rows = 0, steps = 0;   ///< B, T
  bool whole = false;                 ///< PackedOptions::whole
  std::vector<std::size_t> numbers;   ///< which of the lines they are
  std::vector<std::int32_t> lengths;  ///< of each of these
  std::vector<std::int32_t> tokens;   ///< of all of these
};

/// Divides lines among shapes by their lengths. A line's shape depends on its own length alone, so
/// that the same products, in the same order, give its values alone and among others. Lines without
/// tokens are left out.
std::vector<PackedLines> packed_lines(std::span<const LineIds> lines, bool whole = false);

}  // namespace carousel
