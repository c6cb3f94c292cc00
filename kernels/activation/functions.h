#pragma once

#include "kernels/activation/activation.h"

// The functions and their derivatives, of one element, for both devices. `Math` has the device's
// sigmoid, tanh, and erfc with exp(−x²).
namespace carousel::activation {

struct Gelu {  // by erfc: near 0 in its left tail, where 1 + erf would cancel
  template <class R>
  static constexpr R inner(R x) {
    return x * R(-0.70710678118654752);
  }
  template <class Math, class R>
  static constexpr R value(R x) {
    return R(0.5) * x * Math::erfc(inner(x)).value;
  }
  template <class Math, class R>
  static constexpr R slope(R x) {
    const auto [erfc, exp] = Math::erfc(inner(x));
    return R(0.5) * erfc + x * (R(0.39894228040143268) * exp);
  }
};

struct GeluTanh {
  static constexpr double kScale = 1.5957691216057308, kCubic = 0.044715;  // 2·√(2/π)
  template <class R>
  static constexpr R inner(R x) {
    return R(kScale) * x * (1 + R(kCubic) * x * x);
  }
  template <class Math, class R>
  static constexpr R value(R x) {
    return x * Math::sigmoid(inner(x));
  }
  template <class Math, class R>
  static constexpr R slope(R x) {
    const R s = Math::sigmoid(inner(x)), rest = Math::sigmoid(-inner(x));  // 1 − s would cancel
    return s + x * (s * rest) * (R(kScale) * (1 + R(3 * kCubic) * x * x));
  }
};

struct Relu {
  template <class Math, class R>
  static constexpr R value(R x) {
    return x < 0 ? R{0} : x;  // written so that NaN passes through
  }
  template <class Math, class R>
  static constexpr R slope(R x) {
    return x > 0 ? R{1} : x <= 0 ? R{0} : x;
  }
};

struct Silu {
  template <class Math, class R>
  static constexpr R value(R x) {
    return x * Math::sigmoid(x);
  }
  template <class Math, class R>
  static constexpr R slope(R x) {
    const R s = Math::sigmoid(x);
    return s + x * (s * Math::sigmoid(-x));
  }
};

struct Tanh {
  template <class Math, class R>
  static constexpr R value(R x) {
    return Math::tanh(x);
  }
  template <class Math, class R>
  static constexpr R slope(R x) {
    const R y = Math::tanh(x);
    return (1 - y) * (1 + y);
  }
};

/// Calls f with the function of a kind.
template <class F>
void visit(Activation kind, const F& f) {
  switch (kind) {
    case Activation::gelu:
      return f(Gelu{});
    case Activation::gelu_tanh:
      return f(GeluTanh{});
    case Activation::relu:
      return f(Relu{});
    case Activation::silu:
      return f(Silu{});
    case Activation::tanh:
      return f(Tanh{});
  }
}

}  // namespace carousel::activation
