#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace carousel::reference {

/// 1 / √(mean square + epsilon)
inline double inverse_rms(const std::vector<double>& row, double epsilon) {
  double squares = 0;
  for (const double x : row) squares += x * x;
  return 1 / std::sqrt(squares / static_cast<double>(row.size()) + epsilon);
}

/// What d_y gives the row: Σ_i d_y[i]·gain[i]·∂(x[i]·r)/∂x[c], with ∂r/∂x[c] = −r³·x[c] / C.
inline std::vector<double> rms_norm_backward(const std::vector<double>& row,
                                             const std::vector<double>& gain,
                                             const std::vector<double>& d_y, double epsilon) {
  const double r = inverse_rms(row, epsilon);
  double d_r = 0;
  for (std::size_t i = 0; i < row.size(); ++i) d_r += d_y[i] * gain[i] * row[i];
  std::vector<double> d_x;
  for (std::size_t c = 0; c < row.size(); ++c) {
    const double through_r = -d_r * r * r * r * row[c] / static_cast<double>(row.size());
    d_x.push_back(d_y[c] * gain[c] * r + through_r);
  }
  return d_x;
}

}  // namespace carousel::reference
