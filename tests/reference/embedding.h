#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace carousel::reference {

/// y[n,e] = weight[token[n], e]; NaN where there is no such row.
inline std::vector<double> embedding(const std::vector<double>& weight,
                                     const std::vector<std::int32_t>& token, std::size_t vocab,
                                     std::size_t width) {
  std::vector<double> y;
  for (const std::int32_t v : token) {
    const bool exists = v >= 0 && static_cast<std::size_t>(v) < vocab;
    for (std::size_t e = 0; e < width; ++e) {
      y.push_back(exists ? weight[static_cast<std::size_t>(v) * width + e] : std::nan(""));
    }
  }
  return y;
}

/// d_weight[v,e] = before[v,e] + Σ_{n: token[n] = v} d_y[n,e]
inline std::vector<double> embedding_backward(std::vector<double> before,
                                              const std::vector<double>& d_y,
                                              const std::vector<std::int32_t>& token,
                                              std::size_t vocab) {
  std::vector<double> d_weight = std::move(before);
  const std::size_t width = vocab == 0 ? 0 : d_weight.size() / vocab;
  for (std::size_t n = 0; n < token.size(); ++n) {
    if (token[n] < 0 || static_cast<std::size_t>(token[n]) >= vocab) continue;
    for (std::size_t e = 0; e < width; ++e) {
      d_weight[static_cast<std::size_t>(token[n]) * width + e] += d_y[n * width + e];
    }
  }
  return d_weight;
}

}  // namespace carousel::reference
