#pragma once

#include <algorithm>
#include <cmath>
#include <string>

namespace carousel::reference {

/// ε_i of scheduled sampling as its paper has it, by k and i: linear with c = 1/k, k^i and k/(k + e^{i/k}).
inline double epsilon(const std::string& decay, double k, double i, double least) {
  if (decay == "linear") return std::max(least, 1 - (1 / k) * i);
  if (decay == "exponential") return std::max(least, std::pow(k, i));
  return std::max(least, k / (k + std::exp(i / k)));
}

/// How far a count of `draws` may be from its expectation, in standard deviations.
inline double deviations(double count, double draws, double share) {
  return std::abs(count - draws * share) / std::sqrt(std::max(1.0, draws * share * (1 - share)));
}

}  // namespace carousel::reference
