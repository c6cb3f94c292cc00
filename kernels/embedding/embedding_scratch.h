#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/embedding/embedding.h"

namespace carousel {

/// How the backward pass divides its scratch memory, on either device. Private to the op.
template <class T>
struct EmbeddingScratch {
  std::int64_t tile = 0;   ///< positions per tile
  std::int64_t tiles = 0;  ///< the last one may be shorter
  std::uint32_t* unsorted_keys = nullptr;
  std::int32_t* unsorted_positions = nullptr;
  std::uint32_t* keys = nullptr;      ///< [N] sorted: tokens, then the key of those outside [0, V)
  std::int32_t* positions = nullptr;  ///< [N] sorted stably by key
  Accumulator<T>* head = nullptr;  ///< [tiles, E] sum of the run of keys that enters from the left
  Accumulator<T>* tail = nullptr;  ///< [tiles, E] sum of the run that begins here and goes on
  std::byte* rest = nullptr;       ///< what the sorting library needs
  std::size_t bytes = 0;           ///< of all but `rest`

  EmbeddingScratch(std::byte* base, std::int64_t tokens, std::int64_t width)
      : tile(embedding_tile(tokens)), tiles((tokens + tile - 1) / tile) {
    const auto take = [&]<class U>(U*& part, std::int64_t count) {
      if (base != nullptr) part = reinterpret_cast<U*>(base + bytes);
      bytes += (static_cast<std::size_t>(count) * sizeof(U) + 255) / 256 * 256;
    };
    take(unsorted_keys, tokens);
    take(unsorted_positions, tokens);
    take(keys, tokens);
    take(positions, tokens);
    take(head, tiles * width);
    take(tail, tiles * width);
    if (base != nullptr) rest = base + bytes;
  }
};

/// Throws ShapeError "embedding: scratch bytes is <got>, expected at least <need>".
void expect_scratch(std::int64_t got, std::size_t need);

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
