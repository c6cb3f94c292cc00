#pragma once

#include <cstdint>

#include "kernels/common/view.h"

namespace carousel {

/// Which of the steps [T, B] of a batch belong to a sequence, and which of them follow one another.
/// On the host and in kernels.
struct Steps {
  std::int64_t count, batch;               ///< T, B
  View<const std::int32_t, 1> begin, end;  ///< [B] or absent: a row has begin ≤ t < end
  View<const std::int32_t, 2> reset;       ///< [T, B] or absent; not 0: a sequence starts here

  constexpr bool contains(std::int64_t t, std::int64_t b) const {
    return t >= first(b) && t < last(b);
  }
  /// Whether t and t + 1 are steps of one sequence.
  constexpr bool joined(std::int64_t t, std::int64_t b) const {
    return t >= first(b) && t + 1 < last(b) && !(reset.present() && reset(t + 1, b) != 0);
  }
  /// The steps that row b has: first ≤ t < last; none if last ≤ first.
  constexpr std::int64_t first(std::int64_t b) const {
    return begin.present() && begin.data[b] > 0 ? std::int64_t{begin.data[b]} : 0;
  }
  constexpr std::int64_t last(std::int64_t b) const {
    return end.present() && end.data[b] < count ? std::int64_t{end.data[b]} : count;
  }
};

}  // namespace carousel
