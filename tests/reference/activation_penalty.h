#pragma once

#include <cstddef>
#include <vector>

namespace carousel::reference {

/// Hidden states [T, B, H], and which steps of which rows there are.
struct HiddenStates {
  std::size_t steps, batch, width;
  std::vector<double> h;
  std::vector<bool> there{};   ///< [T, B] the row has this step
  std::vector<bool> starts{};  ///< [T, B] a sequence starts at this step

  double at(std::size_t t, std::size_t b, std::size_t j) const {
    return h[(t * batch + b) * width + j];
  }
  bool has(std::size_t t, std::size_t b) const { return there[t * batch + b]; }
  bool pair(std::size_t t, std::size_t b) const {
    return t + 1 < steps && has(t, b) && has(t + 1, b) && !starts[(t + 1) * batch + b];
  }
};

struct Penalty {
  double value;
  std::vector<double> d_h;  ///< of weight · value
};

/// The mean of h², or of (h[t+1] − h[t])², one term after the other, each with its derivative.
inline Penalty activation_penalty(const HiddenStates& s, bool temporal, double weight) {
  Penalty result{.value = 0, .d_h = std::vector<double>(s.h.size(), 0.0)};
  double terms = 0;
  for (std::size_t t = 0; t < s.steps; ++t) {
    for (std::size_t b = 0; b < s.batch; ++b) {
      if (temporal ? !s.pair(t, b) : !s.has(t, b)) continue;
      for (std::size_t j = 0; j < s.width; ++j) {
        const double value = temporal ? s.at(t + 1, b, j) - s.at(t, b, j) : s.at(t, b, j);
        const std::size_t here = (t * s.batch + b) * s.width + j;
        terms += 1;
        result.value += value * value;
        if (temporal) {
          result.d_h[here + s.batch * s.width] += 2 * value;
          result.d_h[here] -= 2 * value;
        } else {
          result.d_h[here] += 2 * value;
        }
      }
    }
  }
  if (terms == 0) return result;
  result.value /= terms;
  for (double& d : result.d_h) d *= weight / terms;
  return result;
}

}  // namespace carousel::reference
