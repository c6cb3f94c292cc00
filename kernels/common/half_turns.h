#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace carousel {

/// Angles that fall from one pair of columns to the next: position·base^(−2i/width), i = 0, 1, …,
/// in half turns between −1 and 1, for sine and cosine of multiples of π. In double, so that
/// positions up to 2²⁴ leave all digits of a float. `position` is whole.
struct HalfTurns {
  double log2_of_ratio;  ///< of neighbouring pairs' angles

  HalfTurns(double base, std::int64_t width)
      : log2_of_ratio(-2 * std::log2(base) / static_cast<double>(width)) {}

#ifdef __CUDACC__
  __host__ __device__
#endif
      double
      operator()(std::int64_t position, std::int64_t pair) const {
    const double turns = static_cast<double>(position) *
                         (exp2(log2_of_ratio * static_cast<double>(pair)) / std::numbers::pi);
    return turns - 2 * rint(turns / 2);
  }
};

}  // namespace carousel
