#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/common/scratch.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// How the backward pass divides its scratch memory, on either device. Private to the op.
template <class T>
struct EmbeddingScratch {
  std::int64_t tile;   ///< positions per tile
  std::int64_t tiles;  ///< the last one may be shorter
  std::uint32_t* unsorted_keys;
  std::int32_t* unsorted_positions;
  std::uint32_t* keys;      ///< [N] sorted: tokens, then the key of those outside [0, V)
  std::int32_t* positions;  ///< [N] sorted stably by key
  Accumulator<T>* head;     ///< [tiles, E] sum of the run of keys that enters from the left
  Accumulator<T>* tail;     ///< [tiles, E] sum of the run that begins here and goes on

  EmbeddingScratch(ScratchCutter& cut, const EmbeddingBackward<T>& op)
      : tile(embedding_tile(op.d_y.extent[0])),
        tiles((op.d_y.extent[0] + tile - 1) / tile),
        unsorted_keys(cut.take<std::uint32_t>(op.d_y.extent[0])),
        unsorted_positions(cut.take<std::int32_t>(op.d_y.extent[0])),
        keys(cut.take<std::uint32_t>(op.d_y.extent[0])),
        positions(cut.take<std::int32_t>(op.d_y.extent[0])),
        head(cut.take<Accumulator<T>>(tiles * op.d_y.extent[1])),
        tail(cut.take<Accumulator<T>>(tiles * op.d_y.extent[1])) {}
};

/// The sort key of tokens outside [0, V): above every key inside.
constexpr std::uint32_t embedding_outside(std::int64_t vocab) {
  return static_cast<std::uint32_t>(std::min(vocab, std::int64_t{1} << 31));
}

constexpr bool known_token(std::int32_t token, std::int64_t vocab) {
  return token >= 0 && token < vocab;
}

constexpr std::uint32_t embedding_key(std::int32_t token, std::int64_t vocab) {
  return known_token(token, vocab) ? static_cast<std::uint32_t>(token) : embedding_outside(vocab);
}

/// Bits in which keys differ.
constexpr int embedding_key_bits(std::int64_t vocab) {
  return static_cast<int>(std::bit_width(embedding_outside(vocab)));
}

}  // namespace carousel
