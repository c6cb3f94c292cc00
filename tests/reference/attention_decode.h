#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

/// What a query of generation makes of all keys and values that its row has had, oldest first: the
/// softmax over the newest `most` of them.
inline std::vector<double> attend_to_newest(const std::vector<double>& query,
                                            const std::vector<std::vector<double>>& keys,
                                            const std::vector<std::vector<double>>& values,
                                            std::size_t most, double scale) {
  const std::size_t first = keys.size() > most ? keys.size() - most : 0;
  std::vector<double> score, y(query.size(), 0);
  double top = -INFINITY, total = 0;
  for (std::size_t s = first; s < keys.size(); ++s) {
    double sum = 0;
    for (std::size_t d = 0; d < query.size(); ++d) sum += query[d] * keys[s][d];
    score.push_back(scale * sum);
    top = std::max(top, score.back());
  }
  for (const double z : score) total += std::exp(z - top);
  for (std::size_t s = first; s < keys.size(); ++s) {
    const double weight = std::exp(score[s - first] - top) / total;
    for (std::size_t d = 0; d < y.size(); ++d) y[d] += weight * values[s][d];
  }
  return y;
}

}  // namespace carousel::reference
