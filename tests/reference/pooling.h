#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace carousel::reference {

/// A batch of sequences to pool: x [T, B, H], and of each row how many steps it says it has.
struct PoolingInput {
  std::size_t steps, batch, width;
  std::vector<double> x;
  std::vector<std::int32_t> length;

  std::size_t index(std::size_t t, std::size_t b, std::size_t h) const {
    return (t * batch + b) * width + h;
  }
  /// What unit h of row b is over the row's own time steps.
  std::vector<double> sequence(std::size_t b, std::size_t h) const {
    std::vector<double> values;
    for (std::size_t t = 0; t < steps && static_cast<std::int64_t>(t) < length[b]; ++t) {
      values.push_back(x[index(t, b, h)]);
    }
    return values;
  }
};

struct Pooled {
  std::vector<double> y;             ///< [B, H]
  std::vector<std::int32_t> chosen;  ///< [B, H] the step of the maximum, or −1
  std::vector<double> d_x;           ///< [T, B, H]
};

/// The mean of every sequence, and what it adds to d_x.
inline Pooled mean_pooling(const PoolingInput& in, const std::vector<double>& d_y,
                           std::vector<double> d_x) {
  Pooled result;
  for (std::size_t b = 0; b < in.batch; ++b) {
    for (std::size_t h = 0; h < in.width; ++h) {
      const auto values = in.sequence(b, h);
      const auto n = static_cast<double>(values.size());
      const double sum = std::accumulate(values.begin(), values.end(), 0.0);
      result.y.push_back(values.empty() ? 0.0 : sum / n);
      for (std::size_t t = 0; t < values.size(); ++t) {
        d_x[in.index(t, b, h)] += d_y[b * in.width + h] / n;
      }
    }
  }
  result.d_x = std::move(d_x);
  return result;
}

/// The maximum of every sequence, NaN above all numbers, and what it adds to d_x.
inline Pooled max_pooling(const PoolingInput& in, const std::vector<double>& d_y,
                          std::vector<double> d_x) {
  const auto less = [](double a, double b) { return !std::isnan(a) && (std::isnan(b) || a < b); };
  Pooled result;
  for (std::size_t b = 0; b < in.batch; ++b) {
    for (std::size_t h = 0; h < in.width; ++h) {
      const auto values = in.sequence(b, h);
      const auto first = std::max_element(values.begin(), values.end(), less);
      result.y.push_back(values.empty() ? 0.0 : *first);
      result.chosen.push_back(values.empty() ? -1
                                             : static_cast<std::int32_t>(first - values.begin()));
      if (values.empty()) continue;
      const auto t = static_cast<std::size_t>(first - values.begin());
      d_x[in.index(t, b, h)] += d_y[b * in.width + h];
    }
  }
  result.d_x = std::move(d_x);
  return result;
}

}  // namespace carousel::reference
