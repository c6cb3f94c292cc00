#pragma once

#include <cmath>
#include <numbers>

#include "kernels/activation/activation.h"

namespace carousel::reference {

/// A number and its derivative.
struct Activated {
  double value, slope;
};

inline Activated gelu(double x) {
  const double phi = (1 + std::erf(x / std::numbers::sqrt2)) / 2;
  const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
  return {x * phi, phi + x * density};
}

inline Activated gelu_tanh(double x) {
  const double root = std::sqrt(2 / std::numbers::pi);
  const double t = std::tanh(root * (x + 0.044715 * x * x * x));
  const double inner = root * (1 + 3 * 0.044715 * x * x);
  return {x * (1 + t) / 2, (1 + t) / 2 + x * (1 - t * t) * inner / 2};
}

inline Activated silu(double x) {
  const double s = 1 / (1 + std::exp(-x));
  return {x * s, s * (1 + x * (1 - s))};
}

inline Activated tanh(double x) {
  const double y = std::tanh(x);
  return {y, 1 - y * y};
}

/// NaN for a kind that there is not.
inline Activated activated(Activation kind, double x) {
  if (kind == Activation::gelu) return gelu(x);
  if (kind == Activation::gelu_tanh) return gelu_tanh(x);
  if (kind == Activation::relu && !std::isnan(x)) return {std::fmax(x, 0), x > 0 ? 1.0 : 0.0};
  if (kind == Activation::silu) return silu(x);
  if (kind == Activation::tanh) return tanh(x);
  return {NAN, NAN};
}

}  // namespace carousel::reference
