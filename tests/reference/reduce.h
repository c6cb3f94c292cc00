#pragma once

#include <cstddef>
#include <vector>

namespace carousel::reference {

/// sum[c] = before[c] + Σ_n x[n,c] for x of before.size() columns.
inline std::vector<double> column_sum(const std::vector<double>& x, std::vector<double> before) {
  for (std::size_t i = 0; i < x.size(); ++i) before[i % before.size()] += x[i];
  return before;
}

}  // namespace carousel::reference
