#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/gradient_norm_penalty/gradient_norm_penalty.h"
#include "kernels/gradient_norm_penalty/rows.h"

namespace carousel {
namespace {

constexpr std::int64_t kParallelElements = 32 * 1024;

/// f(std::integral_constant<SimpleActivation, …>), so that inner loops know the slope.
template <class F>
void with_activation(SimpleActivation activation, const F& f) {
  using enum SimpleActivation;
  switch (activation) {
    case tanh:
      return f(std::integral_constant<SimpleActivation, tanh>{});
    case relu:
      return f(std::integral_constant<SimpleActivation, relu>{});
    case linear:
      return f(std::integral_constant<SimpleActivation, linear>{});
  }
}

/// What a pair of steps gives, from its products.
template <SimpleActivation kActivation, class T>
GradientNormTerm term(const GradientNormRows<T>& r, std::int64_t n) {
  using A = Accumulator<T>;
  const T *const delta = r.delta(n), *const h = r.h(n);
  const A* const v = r.product + n * r.width;
  double of_delta = 0, of_product = 0;
#pragma omp simd reduction(+ : of_delta, of_product)
  for (std::int64_t j = 0; j < r.width; ++j) {
    const auto d = static_cast<double>(static_cast<A>(delta[j]));
    const auto u = static_cast<double>(v[j] * activation_slope(kActivation, static_cast<A>(h[j])));
    of_delta += d * d;
    of_product += u * u;
  }
  return {std::sqrt(of_delta), std::sqrt(of_product)};
}

/// The row of the second product's factor.
template <SimpleActivation kActivation, class T>
void write_factor(const GradientNormRows<T>& r, std::int64_t n, double coefficient) {
  using A = Accumulator<T>;
  const T* const h = r.h(n);
  const A* const v = r.product + n * r.width;
  T* const factor = r.factor + n * r.width;
  if (r.counts[n] == 0) {
    std::fill_n(factor, r.width, static_cast<T>(0.0F));
    return;
  }
#pragma GCC ivdep
  for (std::int64_t j = 0; j < r.width; ++j) {
    const A slope = activation_slope(kActivation, static_cast<A>(h[j]));
    factor[j] =
        static_cast<T>(static_cast<A>(coefficient * static_cast<double>(v[j] * (slope * slope))));
  }
}

}  // namespace

template <class T>
void GradientNormPenalty<T>::check() const {
  const auto expect_like_h = [&](const View<const T, 3>& view) {
    expect_extent("gradient_norm_penalty: delta steps", view.extent[0], h.extent[0]);
    expect_extent("gradient_norm_penalty: delta rows", view.extent[1], h.extent[1]);
    expect_extent("gradient_norm_penalty: delta columns", view.extent[2], h.extent[2]);
  };
  const auto expect_square = [&](const char* rows, const char* columns, const auto& view) {
    expect_extent(rows, view.extent[0], h.extent[2]);
    expect_extent(columns, view.extent[1], h.extent[2]);
  };
  const auto expect_rows = [&](const char* what, const View<const std::int32_t, 1>& rows) {
    if (rows.present()) expect_extent(what, rows.extent[0], h.extent[1]);
  };
  expect_like_h(delta);
  expect_square("gradient_norm_penalty: weight_hh rows", "gradient_norm_penalty: weight_hh columns",
                weight_hh);
  expect_square("gradient_norm_penalty: d_weight_hh rows",
                "gradient_norm_penalty: d_weight_hh columns", d_weight_hh.view);
  expect_rows("gradient_norm_penalty: begin elements", begin);
  expect_rows("gradient_norm_penalty: end elements", end);
  if (reset.present()) {
    expect_extent("gradient_norm_penalty: reset steps", reset.extent[0], h.extent[0]);
    expect_extent("gradient_norm_penalty: reset rows", reset.extent[1], h.extent[1]);
  }
  expect_extent("gradient_norm_penalty: penalty elements", penalty.extent[0], 1);
  if (!std::isfinite(weight)) {
    throw ConfigError(
        fmt::format("gradient_norm_penalty: weight is {}, expected a finite number", weight));
  }
}

template <class T>
std::size_t GradientNormPenalty<T>::scratch_bytes(const Cpu&) const {
  ScratchCutter cut;
  GradientNormRows<T>(cut, *this);
  return cut.bytes();
}

template <class T>
void GradientNormPenalty<T>::run(const Cpu& cpu) const {
  ScratchCutter cut(cpu, scratch);
  const GradientNormRows<T> r(cut, *this);
  cut.expect_enough("gradient_norm_penalty: scratch bytes");
  r.first_product().run(cpu);
  with_activation(activation, [&]<SimpleActivation kActivation>(
                                  std::integral_constant<SimpleActivation, kActivation>) {
#pragma omp parallel for schedule(static) if (r.rows * r.width >= kParallelElements)
    for (std::int64_t n = 0; n < r.rows; ++n) {
      const GradientNormTerm of = r.joined(n) ? term<kActivation>(r, n) : GradientNormTerm();
      r.square[n] = of.square;
      r.coefficient[n] = of.coefficient;
      r.counts[n] = of.counts ? 1 : 0;
    }
    double sum = 0, count = 0;
    for (std::int64_t n = 0; n < r.rows; ++n) sum += r.square[n], count += r.counts[n];
    penalty(0) = static_cast<Accumulator<T>>(count == 0 ? 0 : sum / count);
    const double scale = count == 0 ? 0 : 2 * static_cast<double>(weight) / count;
#pragma omp parallel for schedule(static) if (r.rows * r.width >= kParallelElements)
    for (std::int64_t n = 0; n < r.rows; ++n) {
      write_factor<kActivation>(r, n, scale * r.coefficient[n]);
    }
  });
  r.second_product().run(cpu);
}

template struct GradientNormPenalty<float>;
template struct GradientNormPenalty<bf16>;
template struct GradientNormPenalty<double>;

}  // namespace carousel
