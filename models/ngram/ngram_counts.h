#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/model/estimator.h"
#include "engine/tape/tensor.h"

namespace carousel {

/// The n-grams of one order k, sorted by the context that they continue: the k − 1 tokens before,
/// nearest first. On the CPU. C contexts, C' of the order below, G n-grams.
struct NgramOrder {
  /// [C] i32, of k ≥ 2: the farthest token of each context; ascending among those that extend the
  /// same context of order k − 1.
  Tensor context;
  Tensor context_begin;  ///< [C' + 1] i64, of k ≥ 2: the contexts that extend each of order k − 1
  Tensor token_begin;    ///< [C + 1] i64: the n-grams of each context
  Tensor token;          ///< [G] i32: what follows; ascending in a context
  Tensor count;          ///< [G] i64, above 0
};

/// What is counted.
struct NgramOptions {
  int order = 5;                ///< N, at most kMostOrder
  std::int64_t vocabulary = 0;  ///< V
  std::int32_t begin = -1;      ///< <bos>, which is never predicted; −1: none
  /// The token that sequences begin with or documents end with; −1: none. Before it nothing is known:
  /// it counts as if there were N − 1 of it.
  std::int32_t boundary = -1;
  std::size_t sort_bytes = std::size_t{1} << 28;
  static constexpr int kMostOrder = 8;
};

/// Shifts a token into a history of the last tokens, nearest first, −1 where there is none.
void read_on(std::span<std::int32_t> history, std::int32_t token, std::int32_t boundary);

/// The N-grams of the training part of a corpus, and all shorter n-grams with their continuation
/// counts: of order N how often an n-gram occurs, below it how many different tokens precede it as
/// part of an n-gram of the order above. Element k − 1 is order k. Nothing if fit.stop was set.
///
/// Errors   FormatError for a text without an n-gram of order N; IoError as TemporaryFile.
/// Memory   sort_bytes for sorting, and the result, of which one order is there twice while it is built.
/// Source   Kneser & Ney 1995, ICASSP, 181–184.
std::vector<NgramOrder> count_ngrams(const Fit& fit, const NgramOptions& options);

}  // namespace carousel
