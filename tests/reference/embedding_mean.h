#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

/// The mean of the rows that a context names; an id of −2³¹ is none.
inline std::vector<double> embedding_mean(const std::vector<double>& weight, std::size_t width,
                                          const std::vector<std::int32_t>& context) {
  std::vector<double> mean(width, 0.0);
  double count = 0;
  for (const std::int32_t id : context) count += id == INT32_MIN ? 0 : 1;
  for (const std::int32_t id : context) {
    if (id == INT32_MIN) continue;
    const bool exists = id >= 0 && (static_cast<std::size_t>(id) + 1) * width <= weight.size();
    for (std::size_t e = 0; e < width; ++e) {
      const std::size_t at = static_cast<std::size_t>(exists ? id : 0) * width + e;
      mean[e] += exists ? weight[at] / count : std::nan("");
    }
  }
  return mean;
}

}  // namespace carousel::reference
