#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/reference/dropout.h"

namespace carousel::reference {

/// Draw number `n` from the columns of an alias table: numbers 2n and 2n + 1 of the source choose a column,
/// and whether it passes the draw on.
inline std::int32_t drawn_word(const std::vector<std::int64_t>& columns, const Draw& draw,
                               std::uint64_t n) {
  const auto number = [&](std::uint64_t i) {
    return static_cast<double>(philox_word(i / 4, static_cast<std::uint64_t>(draw.step),
                                           source_key(draw.seed, draw.stream),
                                           static_cast<unsigned>(i % 4)));
  };
  const double share = number(2 * n) / 4294967296.0;
  const auto column = static_cast<std::size_t>(share * static_cast<double>(columns.size()));
  const auto entry = static_cast<std::uint64_t>(columns[column]);
  const double threshold = static_cast<double>(entry / 4294967296U);
  return static_cast<std::int32_t>(number(2 * n + 1) < threshold ? column : entry % 4294967296U);
}

}  // namespace carousel::reference
