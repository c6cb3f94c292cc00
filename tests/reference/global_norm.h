#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace carousel::reference {

/// √ Σ g², every number divided by the largest first, so that no square leaves the range.
inline double global_norm(const std::vector<double>& gradient) {
  double largest = 0;
  for (const double g : gradient) {
    if (!std::isfinite(g)) return std::abs(g);
    largest = std::max(largest, std::abs(g));
  }
  if (largest == 0) return 0;
  long double sum = 0;
  for (const double g : gradient) sum += static_cast<long double>(g / largest) * (g / largest);
  return largest * std::sqrt(static_cast<double>(sum));
}

/// What clip_grad_norm_ multiplies gradients by.
inline double gradient_scale(double norm, double clip_norm) {
  const double coefficient = clip_norm / (norm + 1e-6);
  return clip_norm == 0 ? 1 : std::min(coefficient, 1.0);
}

}  // namespace carousel::reference
