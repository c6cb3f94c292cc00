#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

/// The ids that a row has read since it began, oldest first.
using Seen = std::vector<std::int32_t>;

/// The last `width` of them, and `none` before the first.
inline Seen context(const Seen& seen, std::size_t width, std::int32_t none) {
  Seen result(width, none);
  for (std::size_t i = 0; i < width && i < seen.size(); ++i) {
    result[width - 1 - i] = seen[seen.size() - 1 - i];
  }
  return result;
}

}  // namespace carousel::reference
