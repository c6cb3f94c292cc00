#pragma once

#include <cstdint>
#include <limits>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// One update by Adam or, if decoupled, AdamW, as PyTorch computes them. With t = step:
///
///     g = clamp(gradient · gradient_scale, −clip_value, +clip_value)
///     Adam:  g += weight_decay · weight        AdamW:  weight −= learning_rate · weight_decay · weight
///     m = beta1 · m + (1 − beta1) · g
///     v = beta2 · v + (1 − beta2) · g²
///     weight −= learning_rate / (1 − beta1ᵗ) · m / (√v / √(1 − beta2ᵗ) + epsilon)
///     working = weight rounded to bf16
///
/// Clipping by value comes after scaling and before weight decay. The moments start at 0. T is
/// float, or double on the CPU.
///
/// Values   where finite is 0 nothing at all is written. Otherwise NaN in gradient, scale or
///          learning rate reaches the weights: clamping keeps it. step < 1 makes every weight NaN.
///          An element whose weight, gradient and moments are 0 keeps them, so padding between
///          parameters stays 0.
/// Errors   ShapeError if the views disagree; ConfigError if a number is out of range: epsilon must
///          be positive; also for double on CUDA. N == 0 does nothing.
/// Accuracy within kAdamTolerance of the exact update, for operands of order 1. The bias
///          corrections are computed in double, once per block, with a relative error below 10⁻¹²
///          for 1 − beta ≥ 10⁻³, before they are rounded to T. Repeats bit for bit.
/// Memory   reads weight, gradient, m and v once; writes weight, m, v and working once.
/// Source   Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov & Hutter 2019,
///          arXiv:1711.05101, algorithm 2 (AdamW), with the learning rate on the decay as in
///          PyTorch's torch.optim.AdamW.
template <class T>
struct Adam {
  View<T, 1> weight;                     ///< [N] in and out
  View<const T, 1> gradient;             ///< [N]
  View<T, 1> first_moment;               ///< [N] in and out: m
  View<T, 1> second_moment;              ///< [N] in and out: v
  View<bf16, 1> working{};               ///< [N] out; may be absent
  View<const T, 1> learning_rate;        ///< [1]
  View<const std::int64_t, 1> step;      ///< [1] the number of this update, from 1
  View<const T, 1> gradient_scale{};     ///< [1] of global_norm; absent: 1
  View<const std::int32_t, 1> finite{};  ///< [1] of global_norm; absent: 1
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  double clip_value = 0;   ///< 0: no clipping
  bool decoupled = false;  ///< AdamW
  void check() const;
};

template <class T>
void run(const Cpu&, const Adam<T>&);
template <class T>
void run(const Cuda&, const Adam<T>&);

/// 1 − betaᵗ, by repeated squaring: t rounding errors at most, which betaᵗ shrinks faster than they
/// grow. Only products, so that every device gets the same bits. NaN for t < 1.
constexpr double bias_correction(double beta, std::int64_t t) {
  if (t < 1) return std::numeric_limits<double>::quiet_NaN();
  double power = 1;
  for (double square = beta; t != 0; t /= 2, square *= square) {
    if (t % 2 != 0) power *= square;
  }
  return 1 - power;
}

/// For weight and moments, float; working is the weight rounded, exactly.
inline constexpr Tolerance kAdamTolerance{.absolute = 2e-7, .relative = 2e-7, .worst = 0.39};

}  // namespace carousel
