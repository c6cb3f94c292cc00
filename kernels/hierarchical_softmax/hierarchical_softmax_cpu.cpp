#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>

#include "kernels/common/check.h"
#include "kernels/hierarchical_softmax/hierarchical_softmax.h"

namespace carousel {
namespace {

// Below this many rows, waking the threads costs more than the work.
constexpr std::int64_t kWorthThreads = 256;

/// Who a tree's nodes hang from: leaves 0 … V − 1, then the inner nodes.
struct Joined {
  std::vector<std::size_t> parent;
  std::vector<std::int32_t> turn;
};

/// Joins the two rarest nodes until one is left. Leaves by rising count are one queue, and inner nodes,
/// which come to be by rising count, are another.
Joined join(std::span<const std::int64_t> counts) {
  const std::size_t words = counts.size();
  std::vector<std::size_t> leaves(words);
  std::iota(leaves.begin(), leaves.end(), std::size_t{0});
  std::stable_sort(leaves.begin(), leaves.end(),
                   [&](std::size_t a, std::size_t b) { return counts[a] < counts[b]; });
  Joined tree{.parent = std::vector<std::size_t>(2 * words - 1),
              .turn = std::vector<std::int32_t>(2 * words - 1)};
  std::vector<std::int64_t> sums;
  std::size_t leaf = 0, inner = 0;
  while (sums.size() + 1 < words) {
    std::int64_t sum = 0;
    for (std::int32_t turn = 0; turn < 2; ++turn) {
      const bool is_leaf =
          leaf < words && (inner == sums.size() || counts[leaves[leaf]] <= sums[inner]);
      const std::size_t node = is_leaf ? leaves[leaf] : words + inner;
      sum += is_leaf ? counts[leaves[leaf++]] : sums[inner++];
      tree.parent[node] = words + sums.size();
      tree.turn[node] = turn;
    }
    sums.push_back(sum);
  }
  return tree;
}

}  // namespace

HuffmanTree::HuffmanTree(std::span<const std::int64_t> counts) {
  if (counts.size() < 2) {
    throw ConfigError(fmt::format("huffman tree: {} words, expected at least 2", counts.size()));
  }
  for (const std::int64_t count : counts) {
    if (count < 0) {
      throw ConfigError(fmt::format("huffman tree: a count is {}, expected at least 0", count));
    }
  }
  const Joined tree = join(counts);
  const std::size_t words = counts.size(), root = 2 * words - 2;
  start.push_back(0);
  for (std::size_t word = 0; word < words; ++word) {
    const std::size_t from = node.size();
    for (std::size_t at = word; at != root; at = tree.parent[at]) {
      node.push_back(static_cast<std::int32_t>(tree.parent[at] - words));
      turn.push_back(tree.turn[at]);
    }
    std::reverse(node.begin() + static_cast<std::ptrdiff_t>(from), node.end());
    std::reverse(turn.begin() + static_cast<std::ptrdiff_t>(from), turn.end());
    depth = std::max(depth, static_cast<std::int64_t>(node.size() - from));
    if (node.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      throw ConfigError("huffman tree: the paths have 2^31 nodes or more, expected fewer");
    }
    start.push_back(static_cast<std::int32_t>(node.size()));
  }
}

void HierarchicalSoftmax::check() const {
  expect_at_least("hierarchical_softmax: elements of start", start.extent[0], 1);
  expect_extent("hierarchical_softmax: elements of turn", turn.extent[0], node.extent[0]);
  expect_extent("hierarchical_softmax: rows of choice", choice.extent[0], target.extent[0]);
  expect_at_least("hierarchical_softmax: columns of choice", choice.extent[1], 1);
  expect_extent("hierarchical_softmax: rows of answer", answer.extent[0], target.extent[0]);
  expect_extent("hierarchical_softmax: columns of answer", answer.extent[1], choice.extent[1]);
}

void HierarchicalSoftmax::run(const Cpu&) const {
  const std::int64_t rows = target.extent[0];
#pragma omp parallel for schedule(static) if (rows >= kWorthThreads)
  for (std::int64_t n = 0; n < rows; ++n) write_row(n);
}

}  // namespace carousel
