#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/common/scratch.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// The sort key of tokens outside [0, V): above every key inside.
constexpr std::uint32_t embedding_outside(std::int64_t vocab) {
  return static_cast<std::uint32_t>(std::min(vocab, std::int64_t{1} << 31));
}

constexpr bool known_token(std::int32_t token, std::int64_t vocab) {
  return token >= 0 && token < vocab;
}

/// What the row of a token outside [0, V) is filled with.
constexpr float unknown_row(std::int32_t token) { return token == kNoToken ? 0.0F : NAN; }

constexpr std::uint32_t embedding_key(std::int32_t token, std::int64_t vocab) {
  return known_token(token, vocab) ? static_cast<std::uint32_t>(token) : embedding_outside(vocab);
}

/// RowDropout as a kernel takes it, with the scale computed.
struct RowFactor {
  float drop_probability, scale;
  RandomSource source;

  explicit RowFactor(const RowDropout& dropout)
      : drop_probability(dropout.drop_probability),
        scale(dropout_scale(dropout.drop_probability)),
        source(dropout.source) {}

  constexpr float operator()(std::int64_t row) const {
    if (drop_probability == 0.0F) return 1.0F;
    return dropout_keeps(source, source.step.data[0], row, drop_probability) ? scale : 0.0F;
  }
};

/// What the two backward passes share, on either device: the sum of a token's gradients goes to a
/// row of `to`, which the token itself names (dense) or its rank among the distinct tokens (row-
/// sparse). The arrays lie in scratch memory. Private to the op.
template <class T>
struct EmbeddingSum {
  const T* d_y;                ///< [N / P, E]
  const std::int32_t* token;   ///< [N]
  std::int64_t tokens, width;  ///< N, E
  std::int64_t vocab;
  std::uint32_t outside;              ///< the key of tokens that are none
  const Accumulator<T>* coefficient;  ///< [N] or null
  std::int32_t sharing;               ///< P: tokens that share a row of d_y
  Accumulator<T>* to;
  bool accumulate = false;
  RowFactor factor;  ///< of the row that a key names

  std::int64_t tile;   ///< positions per tile
  std::int64_t tiles;  ///< the last one may be shorter
  std::uint32_t* unsorted_keys;
  std::int32_t* unsorted_positions;
  std::uint32_t* keys;           ///< [N] sorted: tokens, then the key of those outside [0, V)
  std::int32_t* positions;       ///< [N] sorted stably by key
  Accumulator<T>* head;          ///< [tiles, E] sum of the run of keys that enters from the left
  Accumulator<T>* tail;          ///< [tiles, E] sum of the run that begins here and goes on
  std::int32_t* rank = nullptr;  ///< [N] of the sorted key at i: distinct keys up to it; if sparse

  EmbeddingSum(ScratchCutter& cut, const EmbeddingBackward<T>& op)
      : EmbeddingSum(cut, op, op.d_weight.view.extent[0], op.d_weight.view.data) {
    accumulate = op.d_weight.accumulate;
  }
  EmbeddingSum(ScratchCutter& cut, const EmbeddingRowBackward<T>& op)
      : EmbeddingSum(cut, op, op.vocab, op.d_row.data) {
    rank = cut.take<std::int32_t>(tokens);
  }

  /// Bits in which keys differ.
  int key_bits() const { return static_cast<int>(std::bit_width(outside)); }

  /// Where the run that the sorted position i belongs to is written.
  constexpr Accumulator<T>* row_of(std::int64_t i, std::uint32_t key) const {
    return to + (rank != nullptr ? std::int64_t{rank[i]} - 1 : std::int64_t{key}) * width;
  }
  /// The row of d_y, from its first column on, of the token that was at `position`.
  constexpr const T* gradient_of(std::int32_t position) const {
    return d_y + std::int64_t{position / sharing} * width;
  }
  /// Whether the sorted position i is the first of its key, one inside [0, V).
  constexpr bool begins_run(std::int64_t i) const {
    return keys[i] != outside && (i == 0 || keys[i - 1] != keys[i]);
  }

 private:
  template <class Op>
  EmbeddingSum(ScratchCutter& cut, const Op& op, std::int64_t vocabulary, Accumulator<T>* target)
      : d_y(op.d_y.data),
        token(op.token.data),
        tokens(op.token.extent[0]),
        width(op.d_y.extent[1]),
        vocab(vocabulary),
        outside(embedding_outside(vocabulary)),
        coefficient(op.coefficient.data),
        sharing(op.d_y.extent[0] == 0 ? 1 : static_cast<std::int32_t>(tokens / op.d_y.extent[0])),
        to(target),
        factor(op.dropout),
        tile(embedding_tile(tokens)),
        tiles((tokens + tile - 1) / tile),
        unsorted_keys(cut.take<std::uint32_t>(tokens)),
        unsorted_positions(cut.take<std::int32_t>(tokens)),
        keys(cut.take<std::uint32_t>(tokens)),
        positions(cut.take<std::int32_t>(tokens)),
        head(cut.take<Accumulator<T>>(tiles * width)),
        tail(cut.take<Accumulator<T>>(tiles * width)) {}
};

}  // namespace carousel
