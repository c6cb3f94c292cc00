#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/reference/dropout.h"

namespace carousel::reference {

/// A word of a text that is kept, where it stood, and which piece of the text it is of.
struct KeptWord {
  std::int32_t id;
  std::size_t place;
  int piece;
};

/// Number `word` (0 … 3) of those drawn at a place, in [0, 2³²).
inline std::uint32_t drawn_at(const Draw& draw, std::size_t place, unsigned word) {
  return philox_word(place, static_cast<std::uint64_t>(draw.step),
                     source_key(draw.seed, draw.stream), word);
}

/// The words up to `radius` before or after the i-th of a text, of its piece: nearest first.
inline std::vector<std::int32_t> neighbours(const std::vector<KeptWord>& text, std::size_t i,
                                            std::size_t radius, bool after) {
  std::vector<std::int32_t> found;
  for (std::size_t j = 1; j <= radius; ++j) {
    if (after ? i + j >= text.size() : j > i) break;
    const KeptWord& other = after ? text[i + j] : text[i - j];
    if (other.piece == text[i].piece) found.push_back(other.id);
  }
  return found;
}

}  // namespace carousel::reference
