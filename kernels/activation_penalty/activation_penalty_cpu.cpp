#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/activation_penalty/activation_penalty.h"
#include "kernels/common/check.h"
#include "kernels/common/scratch.h"

namespace carousel {
namespace {

/// A step of a row: it, and the steps before and after, which are the step itself where there is no
/// pair, so that the difference is 0.
template <class T>
struct Place {
  const T *before, *here, *after;
};

/// The sum of squares over one row of units: of h, or of its change to the next step.
template <PenaltyKind kKind, class T>
Accumulator<T> sum_of_squares(const Place<T>& place, std::int64_t width) {
  using A = Accumulator<T>;
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = 0; j < width; ++j) {
    const auto h = static_cast<A>(place.here[j]);
    const A term = kKind == PenaltyKind::activation ? h : static_cast<A>(place.after[j]) - h;
    sum += term * term;
  }
  return sum;
}

/// d[j] (+)= factor · what is left of the derivative of the squares without their 2.
template <PenaltyKind kKind, class T>
void write_gradient(const Place<T>& place, Accumulator<T> factor, T* d, bool accumulate,
                    std::int64_t width) {
  using A = Accumulator<T>;
#pragma GCC ivdep
  for (std::int64_t j = 0; j < width; ++j) {
    const auto h = static_cast<A>(place.here[j]);
    const A slope = kKind == PenaltyKind::activation ? h
                                                     : (h - static_cast<A>(place.before[j])) -
                                                           (static_cast<A>(place.after[j]) - h);
    d[j] =
        static_cast<T>(accumulate ? std::fma(factor, slope, static_cast<A>(d[j])) : factor * slope);
  }
}

/// How many steps, or pairs of them, the means are over.
std::int64_t counted(const Steps& steps, PenaltyKind kind) {
  std::int64_t count = 0;
  for (std::int64_t b = 0; b < steps.batch; ++b) {
    const std::int64_t of_row = std::max<std::int64_t>(0, steps.last(b) - steps.first(b));
    if (kind == PenaltyKind::activation) {
      count += of_row;
    } else if (!steps.reset.present()) {
      count += std::max<std::int64_t>(0, of_row - 1);
    } else {
      for (std::int64_t t = 0; t + 1 < steps.count; ++t) count += steps.joined(t, b) ? 1 : 0;
    }
  }
  return count;
}

/// The sum over the rows of one step, and their gradients.
template <PenaltyKind kKind, class T>
double step(const ActivationPenalty<T>& op, std::int64_t t, Accumulator<T> factor) {
  const auto [count, batch, width] = op.h.extent;
  const Steps steps = op.steps();
  double sum = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t first = (t * batch + b) * width, stride = batch * width;
    T* const d = op.d_h.present() ? op.d_h.view.data + first : nullptr;
    if (!steps.contains(t, b)) {
      if (d != nullptr && !op.d_h.accumulate) std::fill_n(d, width, static_cast<T>(0.0F));
      continue;
    }
    const T* const h = op.h.data + first;
    const Place<T> place{t > 0 && steps.joined(t - 1, b) ? h - stride : h, h,
                         steps.joined(t, b) ? h + stride : h};
    sum += static_cast<double>(sum_of_squares<kKind>(place, width));
    if (d != nullptr) write_gradient<kKind>(place, factor, d, op.d_h.accumulate, width);
  }
  return sum;
}

}  // namespace

template <class T>
void ActivationPenalty<T>::check() const {
  const auto expect_rows = [&](const char* what, const View<const std::int32_t, 1>& rows) {
    if (rows.present()) expect_extent(what, rows.extent[0], h.extent[1]);
  };
  expect_rows("activation_penalty: begin elements", begin);
  expect_rows("activation_penalty: end elements", end);
  if (reset.present()) {
    expect_extent("activation_penalty: reset steps", reset.extent[0], h.extent[0]);
    expect_extent("activation_penalty: reset rows", reset.extent[1], h.extent[1]);
  }
  expect_extent("activation_penalty: penalty elements", penalty.extent[0], 1);
  if (d_h.present()) {
    expect_extent("activation_penalty: d_h steps", d_h.view.extent[0], h.extent[0]);
    expect_extent("activation_penalty: d_h rows", d_h.view.extent[1], h.extent[1]);
    expect_extent("activation_penalty: d_h columns", d_h.view.extent[2], h.extent[2]);
  }
  if (!std::isfinite(weight)) {
    throw ConfigError(
        fmt::format("activation_penalty: weight is {}, expected a finite number", weight));
  }
}

template <class T>
std::size_t ActivationPenalty<T>::scratch_bytes(const Cpu&) const {
  ScratchCutter cut;
  cut.take<double>(h.extent[0]);
  return cut.bytes();
}

template <class T>
void ActivationPenalty<T>::run(const Cpu& cpu) const {
  constexpr std::int64_t kParallelElements = 32 * 1024;
  ScratchCutter cut(cpu, scratch);
  const std::int64_t count = h.extent[0];
  double* const partial = cut.take<double>(count);  // one for each step, whatever the threads are
  cut.expect_enough("activation_penalty: scratch bytes");
  const auto terms = static_cast<double>(counted(steps(), kind) * h.extent[2]);
  const double mean_of = terms == 0 ? 0 : 1 / terms;
  const auto factor = static_cast<Accumulator<T>>(2 * static_cast<double>(weight) * mean_of);
#pragma omp parallel for schedule(static) if (h.size() >= kParallelElements)
  for (std::int64_t t = 0; t < count; ++t) {
    partial[t] = kind == PenaltyKind::activation ? step<PenaltyKind::activation>(*this, t, factor)
                                                 : step<PenaltyKind::temporal>(*this, t, factor);
  }
  penalty(0) =
      static_cast<Accumulator<T>>(std::accumulate(partial, partial + count, 0.0) * mean_of);
}

template struct ActivationPenalty<float>;
template struct ActivationPenalty<bf16>;
template struct ActivationPenalty<double>;

}  // namespace carousel
