#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/common/device.h"
#include "kernels/common/view.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// A binary tree whose leaves are V words, such that frequent words have short paths from the root: no
/// other tree has a shorter path on average. It has V − 1 inner nodes, of which the last is the root.
///
/// Source   Huffman 1952, Proceedings of the IRE 40(9):1098; words as leaves: Mikolov, Sutskever, Chen,
///          Corrado & Dean 2013, arXiv:1310.4546, section 2.1.
struct HuffmanTree {
  std::vector<std::int32_t>
      start;  ///< [V + 1] the path of word v is at start[v] … start[v + 1] − 1
  std::vector<std::int32_t> node;  ///< inner nodes from the root on
  std::vector<std::int32_t> turn;  ///< 1 where the path goes on in a node's second branch
  std::int64_t depth = 0;          ///< length of the longest path

  /// Of words that occur so often; those with equal counts are joined in the order of their numbers.
  /// ConfigError for fewer than 2 words, a count below 0, and for paths of 2³¹ nodes and more in all.
  explicit HuffmanTree(std::span<const std::int64_t> counts);
};

/// The decisions that lead from a tree's root to a target, for BinaryChoices, whose loss is then −log of
/// the target's probability: of two branches each, probabilities of all words add up to 1.
///
///     choice[n,c] = node[start[v] + c],  answer[n,c] = turn[start[v] + c],    v = target[n]
///
/// Values   kNoToken and 0 behind a path's end, and in all of a row whose target is kIgnoreTarget. Another
///          target outside [0, V) has the impossible choice −1, for a loss of NaN. A path longer than D is
///          cut off.
/// Errors   ShapeError if the extents disagree, and for D < 1. N == 0 does nothing.
/// Accuracy exact.
/// Memory   reads target, and its path; writes choice and answer once.
/// Source   Morin & Bengio 2005, AISTATS, section 3.
struct HierarchicalSoftmax {
  View<const std::int32_t, 1> target;  ///< [N]
  View<const std::int32_t, 1> start;   ///< [V + 1]
  View<const std::int32_t, 1> node;    ///< [P]
  View<const std::int32_t, 1> turn;    ///< [P]
  View<std::int32_t, 2> choice;        ///< [N, D] out
  View<std::int32_t, 2> answer;        ///< [N, D] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  /// Everything of row n.
  constexpr void write_row(std::int64_t n) const {
    const std::int32_t word = target.data[n];
    const bool is_word = in_vocabulary(word, start.extent[0] - 1);
    const std::int64_t from = is_word ? start.data[word] : 0;
    const std::int64_t length = is_word ? start.data[word + 1] - from : 0;
    for (std::int64_t c = 0; c < choice.extent[1]; ++c) {
      choice(n, c) = c < length ? node.data[from + c] : kNoToken;
      answer(n, c) = c < length ? turn.data[from + c] : 0;
    }
    if (!is_word && word != kIgnoreTarget) choice(n, 0) = -1;
  }
};

}  // namespace carousel
