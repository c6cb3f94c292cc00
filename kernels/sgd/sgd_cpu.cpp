#include <fmt/format.h>

#include <cmath>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/sgd/sgd.h"

namespace carousel {
namespace {

void expect_number(const char* what, double got) {
  if (!(got >= 0 && std::isfinite(got))) {
    throw ConfigError(fmt::format("sgd: {} is {}, expected 0 or a positive number", what, got));
  }
}

/// The update of `count` elements from `first` on. kMomentum is a template parameter, so that the
/// loop without it has no pointer to a buffer that is not there.
template <bool kMomentum, class T>
void update(const Sgd<T>& op, std::int64_t first, std::int64_t count) {
  T* const weight = op.weight.data + first;
  const T* const gradient = op.gradient.data + first;
  T* const velocity = kMomentum ? op.velocity.data + first : nullptr;
  const T rate = op.learning_rate(0);
  const T scale = op.gradient_scale.present() ? op.gradient_scale(0) : T{1};
  const T limit = op.clip_value == 0 ? static_cast<T>(INFINITY) : static_cast<T>(op.clip_value);
  const T decay = static_cast<T>(op.weight_decay), momentum = static_cast<T>(op.momentum);
  const bool nesterov = op.nesterov;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    T g = gradient[i] * scale;
    g = g > limit ? limit : g;  // NaN compares false and stays
    g = g < -limit ? -limit : g;
    g += decay * weight[i];
    if constexpr (kMomentum) {
      const T b = momentum * velocity[i] + g;
      velocity[i] = b;
      g = nesterov ? g + momentum * b : b;
    }
    weight[i] -= rate * g;
  }
}

}  // namespace

template <class T>
void Sgd<T>::check() const {
  const std::int64_t size = weight.extent[0];
  expect_extent("sgd: gradient elements", gradient.extent[0], size);
  expect_number("momentum", momentum);
  expect_number("weight_decay", weight_decay);
  expect_number("clip_value", clip_value);
  if (nesterov && momentum == 0) {
    throw ConfigError("sgd: nesterov is set with momentum 0, expected a positive momentum");
  }
  if (momentum != 0) {
    expect_present("sgd: velocity, which momentum needs,", velocity.present());
    expect_extent("sgd: velocity elements", velocity.extent[0], size);
  } else if (velocity.present()) {
    throw ShapeError("sgd: velocity is given with momentum 0, expected none");
  }
  if (working.present()) expect_extent("sgd: working elements", working.extent[0], size);
  expect_extent("sgd: learning_rate elements", learning_rate.extent[0], 1);
  if (gradient_scale.present()) {
    expect_extent("sgd: gradient_scale elements", gradient_scale.extent[0], 1);
  }
  if (finite.present()) expect_extent("sgd: finite elements", finite.extent[0], 1);
}

template <class T>
void run(const Cpu&, const Sgd<T>& op) {
  if (op.finite.present() && op.finite(0) == 0) return;
  in_chunks(op.weight.extent[0], [&](std::int64_t first, std::int64_t count) {
    if (op.momentum != 0) {
      update<true>(op, first, count);
    } else {
      update<false>(op, first, count);
    }
    if (!op.working.present()) return;
    bf16* const working = op.working.data + first;
    const T* const weight = op.weight.data + first;
    // Not omp simd: it makes arrays of class temporaries, and bf16 then stays scalar.
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) working[i] = static_cast<bf16>(weight[i]);
  });
}

template struct Sgd<float>;
template struct Sgd<double>;
template void run(const Cpu&, const Sgd<float>&);
template void run(const Cpu&, const Sgd<double>&);

}  // namespace carousel
