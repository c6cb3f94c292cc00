#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace carousel::reference {

/// The cost of the best binary code for these counts: Σ count · length. Joining two trees makes all their
/// words one decision longer, so that the cost is the sum of all joined counts.
inline std::int64_t huffman_cost(const std::vector<std::int64_t>& counts) {
  std::multiset<std::int64_t> trees(counts.begin(), counts.end());
  std::int64_t cost = 0;
  while (trees.size() > 1) {
    const std::int64_t first = *trees.begin();
    trees.erase(trees.begin());
    const std::int64_t second = *trees.begin();
    trees.erase(trees.begin());
    trees.insert(first + second);
    cost += first + second;
  }
  return cost;
}

/// A path through the tree: (node, turn) from the root on.
using Path = std::vector<std::pair<std::int32_t, std::int32_t>>;

inline Path path(const std::vector<std::int32_t>& start, const std::vector<std::int32_t>& node,
                 const std::vector<std::int32_t>& turn, std::int32_t word) {
  Path result;
  const auto v = static_cast<std::size_t>(word);
  for (auto i = static_cast<std::size_t>(start[v]); i < static_cast<std::size_t>(start[v + 1]);
       ++i) {
    result.emplace_back(node[i], turn[i]);
  }
  return result;
}

}  // namespace carousel::reference
