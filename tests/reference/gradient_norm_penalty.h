#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <vector>

#include "tests/reference/activation_penalty.h"

namespace carousel::reference {

struct GradientNormPenalty {
  double value;
  std::vector<double> d_weight;  ///< [H, H] of weight · value, with δ and φ' constant
};

/// The mean over pairs of steps of (‖(δ[t+1]·W) ∘ φ'(a[t])‖ / ‖δ[t+1]‖ − 1)², of which δ[t+1] = 0
/// is left out. `s` has the hidden states, `slope` gives φ' of one.
inline GradientNormPenalty gradient_norm_penalty(const HiddenStates& s,
                                                 const std::vector<double>& delta,
                                                 const std::vector<double>& w,
                                                 const std::function<double(double)>& slope,
                                                 double weight) {
  const std::size_t width = s.width;
  GradientNormPenalty result{.value = 0, .d_weight = std::vector<double>(width * width, 0.0)};
  double pairs = 0;
  for (std::size_t t = 0; t + 1 < s.steps; ++t) {
    for (std::size_t b = 0; b < s.batch; ++b) {
      const double* const d = delta.data() + ((t + 1) * s.batch + b) * width;
      double of_d = 0, of_u = 0;
      for (std::size_t i = 0; i < width; ++i) of_d += d[i] * d[i];
      if (!s.pair(t, b) || of_d == 0) continue;
      std::vector<double> u(width, 0.0);
      for (std::size_t j = 0; j < width; ++j) {
        for (std::size_t i = 0; i < width; ++i) u[j] += d[i] * w[i * width + j];
        u[j] *= slope(s.at(t, b, j));
        of_u += u[j] * u[j];
      }
      const double ratio = std::sqrt(of_u / of_d);
      pairs += 1;
      result.value += (ratio - 1) * (ratio - 1);
      if (of_u == 0) continue;
      for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t j = 0; j < width; ++j) {
          const double d_ratio = u[j] * slope(s.at(t, b, j)) * d[i] / std::sqrt(of_u * of_d);
          result.d_weight[i * width + j] += 2 * (ratio - 1) * d_ratio;
        }
      }
    }
  }
  if (pairs == 0) return result;
  result.value /= pairs;
  for (double& g : result.d_weight) g *= weight / pairs;
  return result;
}

}  // namespace carousel::reference
