#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace carousel::reference {

/// y[n,e] = factor[token[n]] · weight[token[n], e]; NaN where there is no such row, 0 where there is no
/// token: −2³¹.
inline std::vector<double> embedding(const std::vector<double>& weight,
                                     const std::vector<std::int32_t>& token,
                                     const std::vector<double>& factor, std::size_t width) {
  const std::size_t vocab = factor.size();
  std::vector<double> y;
  for (const std::int32_t v : token) {
    const bool exists = v >= 0 && static_cast<std::size_t>(v) < vocab;
    for (std::size_t e = 0; e < width; ++e) {
      const auto row = static_cast<std::size_t>(v);
      const double missing = v == INT32_MIN ? 0 : std::nan("");
      y.push_back(exists ? factor[row] * weight[row * width + e] : missing);
    }
  }
  return y;
}

/// d_weight[v,e] = before[v,e] + factor[v] · Σ_{n: token[n] = v} coefficient[n] · d_y[⌊n / P⌋, e], where
/// an empty coefficient is 1, and P is as many tokens as there are for a row of d_y.
inline std::vector<double> embedding_backward(std::vector<double> before,
                                              const std::vector<double>& d_y,
                                              const std::vector<std::int32_t>& token,
                                              const std::vector<double>& factor,
                                              const std::vector<double>& coefficient = {}) {
  std::vector<double> d_weight = std::move(before);
  const std::size_t vocab = factor.size();
  const std::size_t width = vocab == 0 ? 0 : d_weight.size() / vocab;
  const std::size_t sharing = d_y.empty() ? 1 : token.size() * width / d_y.size();
  for (std::size_t n = 0; n < token.size(); ++n) {
    if (token[n] < 0 || static_cast<std::size_t>(token[n]) >= vocab) continue;
    const auto row = static_cast<std::size_t>(token[n]);
    const double times = factor[row] * (coefficient.empty() ? 1 : coefficient[n]);
    for (std::size_t e = 0; e < width; ++e) {
      d_weight[row * width + e] += times * d_y[n / sharing * width + e];
    }
  }
  return d_weight;
}

}  // namespace carousel::reference
