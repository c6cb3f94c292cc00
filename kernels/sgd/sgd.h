#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// One update by stochastic gradient descent, with PyTorch's momentum and weight decay:
///
///     g = clamp(gradient · gradient_scale, −clip_value, +clip_value) + weight_decay · weight
///     b = momentum · b + g                                 (b is g if momentum is 0)
///     weight −= learning_rate · (g + momentum · b if nesterov, otherwise b)
///     working = weight rounded to bf16
///
/// Clipping by value comes after scaling and before weight decay. The first update starts from
/// b = 0, which is what PyTorch's "no buffer yet" amounts to. T is float, or double on the CPU.
///
/// Values   where finite is 0 nothing at all is written. Otherwise NaN in gradient, scale or
///          learning rate reaches the weights: clamping keeps it. An element whose weight, gradient
///          and buffer are 0 keeps them, so padding between parameters stays 0.
/// Errors   ShapeError if the views disagree, or velocity is present and momentum 0 or the reverse;
///          ConfigError if a number is out of range, or nesterov without momentum, or for double
///          on CUDA. N == 0 does nothing.
/// Accuracy within kSgdTolerance of the exact update, for operands of order 1. Repeats bit for bit.
/// Memory   reads weight, gradient and velocity once; writes weight, velocity and working once.
/// Source   Sutskever, Martens, Dahl & Hinton 2013, ICML 28(3):1139, section 2 (both momenta, with
///          the learning rate outside the buffer as in PyTorch's torch.optim.SGD).
template <class T>
struct Sgd {
  View<T, 1> weight;                     ///< [N] in and out
  View<const T, 1> gradient;             ///< [N]
  View<T, 1> velocity{};                 ///< [N] in and out: b; present if momentum is not 0
  View<bf16, 1> working{};               ///< [N] out; may be absent
  View<const T, 1> learning_rate;        ///< [1]
  View<const T, 1> gradient_scale{};     ///< [1] of global_norm; absent: 1
  View<const std::int32_t, 1> finite{};  ///< [1] of global_norm; absent: 1
  double momentum = 0;
  double weight_decay = 0;
  double clip_value = 0;  ///< 0: no clipping
  bool nesterov = false;
  void check() const;
};

template <class T>
void run(const Cpu&, const Sgd<T>&);
template <class T>
void run(const Cuda&, const Sgd<T>&);

/// For weight and velocity, float; working is the weight rounded, exactly.
inline constexpr Tolerance kSgdTolerance{.absolute = 4e-7, .relative = 1e-7, .worst = 0.56};

}  // namespace carousel
