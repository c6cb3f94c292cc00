#include <fmt/format.h>

#include <cmath>

#include "kernels/adam/adam.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"

namespace carousel {
namespace {

void expect_that(bool holds, const char* what, double got, const char* want) {
  if (!holds) throw ConfigError(fmt::format("adam: {} is {}, expected {}", what, got, want));
}

template <class T>
void update(const Adam<T>& op, std::int64_t first, std::int64_t count) {
  T* const weight = op.weight.data + first;
  const T* const gradient = op.gradient.data + first;
  T* const m = op.first_moment.data + first;
  T* const v = op.second_moment.data + first;
  const T scale = op.gradient_scale.present() ? op.gradient_scale(0) : T{1};
  const T limit = op.clip_value == 0 ? static_cast<T>(INFINITY) : static_cast<T>(op.clip_value);
  const double rate = op.learning_rate(0);
  const T keep = static_cast<T>(op.decoupled ? rate * op.weight_decay : 0.0);
  const T decay = static_cast<T>(op.decoupled ? 0.0 : op.weight_decay);
  const T beta1 = static_cast<T>(op.beta1), rest1 = static_cast<T>(1 - op.beta1);
  const T beta2 = static_cast<T>(op.beta2), rest2 = static_cast<T>(1 - op.beta2);
  const T size = static_cast<T>(rate / bias_correction(op.beta1, op.step(0)));
  const T root = static_cast<T>(1 / std::sqrt(bias_correction(op.beta2, op.step(0))));
  const T epsilon = static_cast<T>(op.epsilon);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    T g = gradient[i] * scale;
    g = g > limit ? limit : g;  // NaN compares false and stays
    g = g < -limit ? -limit : g;
    g += decay * weight[i];
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * (g * g);
    weight[i] -= keep * weight[i] + size * (m[i] / (std::sqrt(v[i]) * root + epsilon));
  }
}

}  // namespace

template <class T>
void Adam<T>::check() const {
  const std::int64_t size = weight.extent[0];
  expect_extent("adam: gradient elements", gradient.extent[0], size);
  expect_extent("adam: first_moment elements", first_moment.extent[0], size);
  expect_extent("adam: second_moment elements", second_moment.extent[0], size);
  if (working.present()) expect_extent("adam: working elements", working.extent[0], size);
  expect_extent("adam: learning_rate elements", learning_rate.extent[0], 1);
  expect_extent("adam: step elements", step.extent[0], 1);
  if (gradient_scale.present()) {
    expect_extent("adam: gradient_scale elements", gradient_scale.extent[0], 1);
  }
  if (finite.present()) expect_extent("adam: finite elements", finite.extent[0], 1);
  expect_that(beta1 >= 0 && beta1 < 1, "beta1", beta1, "a number in [0, 1)");
  expect_that(beta2 >= 0 && beta2 < 1, "beta2", beta2, "a number in [0, 1)");
  // Not 0, nor what is 0 as a float: where a gradient was always 0, as in padding, 0 / 0 would be
  // the update.
  expect_that(static_cast<float>(epsilon) > 0 && std::isfinite(epsilon), "epsilon", epsilon,
              "a positive number");
  expect_that(weight_decay >= 0 && std::isfinite(weight_decay), "weight_decay", weight_decay,
              "0 or a positive number");
  expect_that(clip_value >= 0 && std::isfinite(clip_value), "clip_value", clip_value,
              "0 or a positive number");
}

template <class T>
void run(const Cpu&, const Adam<T>& op) {
  if (op.finite.present() && op.finite(0) == 0) return;
  in_chunks(op.weight.extent[0], [&](std::int64_t first, std::int64_t count) {
    update(op, first, count);
    if (!op.working.present()) return;
    bf16* const working = op.working.data + first;
    const T* const weight = op.weight.data + first;
    // Not omp simd: it makes arrays of class temporaries, and bf16 then stays scalar.
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) working[i] = static_cast<bf16>(weight[i]);
  });
}

template struct Adam<float>;
template struct Adam<double>;
template void run(const Cpu&, const Adam<float>&);
template void run(const Cpu&, const Adam<double>&);

}  // namespace carousel
