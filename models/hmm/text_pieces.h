#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/text/tokens.h"

namespace carousel {

/// Calls f(at, piece) with the pieces of a text in order, and the place where each begins.
template <class F>
void each_piece(const TokenRange& tokens, F&& f) {
  constexpr std::int64_t kPiece = std::int64_t{1} << 16;
  std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(kPiece, tokens.count)));
  for (std::int64_t at = 0; at < tokens.count; at += kPiece) {
    const std::int64_t count = std::min(kPiece, tokens.count - at);
    tokens.read(at, count, piece.data());
    f(at, std::span<const std::int32_t>(piece).first(static_cast<std::size_t>(count)));
  }
}

}  // namespace carousel
