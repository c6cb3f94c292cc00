#include "engine/run/packed_lines.h"

#include <algorithm>
#include <bit>
#include <compare>
#include <map>
#include <utility>

namespace carousel {
namespace {

struct Sizes {
  std::int64_t rows, steps;
  auto operator<=>(const Sizes&) const = default;
};

// Short lines share a batch, and a single one costs no more than B·T steps. A long one would leave
// the other rows of a batch empty: it has one row and long windows.
Sizes sizes_of(std::size_t length) {
  if (length < 2048) return {.rows = 32, .steps = 16};
  return {.rows = 1, .steps = 512};
}

// A window holds two whole lines or more, so that little of it is left empty; a single long one. A
// single short line costs no more than 4096 steps.
Sizes whole_sizes_of(std::size_t length) {
  if (length > 512) return {.rows = 1, .steps = static_cast<std::int64_t>(std::bit_ceil(length))};
  const auto steps = static_cast<std::int64_t>(std::bit_ceil(std::max(2 * length, 64UL)));
  return {.rows = std::min<std::int64_t>(32, 4096 / steps), .steps = steps};
}

}  // namespace

std::vector<PackedLines> packed_lines(std::span<const LineIds> lines, bool whole) {
  std::map<Sizes, PackedLines> packed;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const LineIds& line = lines[i];
    if (line.empty()) continue;
    const Sizes sizes = whole ? whole_sizes_of(line.size()) : sizes_of(line.size());
    PackedLines& to = packed[sizes];
    to.numbers.push_back(i);
    to.lengths.push_back(static_cast<std::int32_t>(line.size()));
    to.tokens.insert(to.tokens.end(), line.begin(), line.end());
  }
  std::vector<PackedLines> result;
  for (auto& [sizes, some] : packed) {
    some.rows = sizes.rows, some.steps = sizes.steps, some.whole = whole;
    result.push_back(std::move(some));
  }
  return result;
}

}  // namespace carousel
