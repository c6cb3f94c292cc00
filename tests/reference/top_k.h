#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

namespace carousel::reference {

using Rows = std::vector<std::vector<double>>;

/// The product of a query with each row of a table.
inline std::vector<double> scores(const std::vector<double>& query, const Rows& table) {
  std::vector<double> result;
  for (const std::vector<double>& row : table) {
    result.push_back(std::inner_product(query.begin(), query.end(), row.begin(), 0.0));
  }
  return result;
}

/// The rows of the k largest scores, but for those left out; the largest first, of equals the first.
inline std::vector<std::size_t> largest(const std::vector<double>& scores, std::size_t k,
                                        const std::set<std::size_t>& left_out = {}) {
  std::vector<std::size_t> rows;
  for (std::size_t v = 0; v < scores.size(); ++v) {
    if (!left_out.contains(v)) rows.push_back(v);
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  rows.resize(std::min(k, rows.size()));
  return rows;
}

}  // namespace carousel::reference
