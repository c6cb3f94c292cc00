#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace carousel::reference {

using Row = std::vector<double>;

inline double mean(const Row& row) {
  double sum = 0;
  for (const double x : row) sum += x;
  return sum / static_cast<double>(row.size());
}

inline double variance(const Row& row) {
  const double center = mean(row);
  Row squares;
  for (const double x : row) squares.push_back((x - center) * (x - center));
  return mean(squares);
}

/// x̂, the row with mean 0 and variance 1.
inline Row normalized(const Row& row, double epsilon) {
  const double center = mean(row), deviation = std::sqrt(variance(row) + epsilon);
  Row result;
  for (const double x : row) result.push_back((x - center) / deviation);
  return result;
}

inline Row times(const Row& a, const Row& b) {
  Row result;
  for (std::size_t c = 0; c < a.size(); ++c) result.push_back(a[c] * b[c]);
  return result;
}

/// gain ∘ x̂ + bias
inline Row layer_norm(const Row& row, const Row& gain, const Row& bias, double epsilon) {
  Row y = times(gain, normalized(row, epsilon));
  for (std::size_t c = 0; c < y.size(); ++c) y[c] += bias[c];
  return y;
}

/// What a row of gradients d_y gives the row, with δ = gain ∘ d_y:
/// (δ − mean(δ) − x̂·mean(δ ∘ x̂)) / deviation
inline Row layer_norm_backward(const Row& row, const Row& gain, const Row& d_y, double epsilon) {
  const Row x = normalized(row, epsilon), d = times(gain, d_y);
  const double shift = mean(d), slope = mean(times(d, x));
  const double deviation = std::sqrt(variance(row) + epsilon);
  Row d_x;
  for (std::size_t c = 0; c < d.size(); ++c) {
    d_x.push_back((d[c] - shift - x[c] * slope) / deviation);
  }
  return d_x;
}

}  // namespace carousel::reference
