#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/weight_update/weight_update.h"

namespace carousel {
namespace {

void expect_that(bool holds, const char* what, double got, const char* want) {
  if (!holds) throw ConfigError(fmt::format("{} is {}, expected {}", what, got, want));
}

void expect_not_negative(const char* what, double got) {
  expect_that(got >= 0 && std::isfinite(got), what, got, "0 or a positive number");
}

void expect_positive(const char* what, double got) {
  expect_that(got > 0 && std::isfinite(got), what, got, "a positive number");
}

/// Not 0, nor what is 0 as a float: where a gradient was always 0, as in padding, 0 / 0 would be the
/// update.
void expect_epsilon(const char* what, double got) {
  expect_that(static_cast<float>(got) > 0 && std::isfinite(got), what, got, "a positive number");
}

/// The `count` weights from `first` on, by the gradients from `gradient` on.
template <class Rule, class T, std::size_t... S>
void update(const WeightUpdate<Rule, T>& op,
            const typename WeightUpdate<Rule, T>::Numbers& of_this_step, std::int64_t first,
            const T* gradient, std::int64_t count, std::index_sequence<S...>) {
  const auto numbers = of_this_step;  // a local copy stays in registers
  T* const weight = op.weight.data + first;
  [[maybe_unused]] const std::array<T*, sizeof...(S)> state{(op.state[S].data + first)...};
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    numbers.update(gradient[i], weight[i], state[S][i]...);
  }
  if (!op.working.present()) return;
  bf16* const working = op.working.data + first;
  // Not omp simd: it makes arrays of class temporaries, and bf16 then stays scalar.
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) working[i] = static_cast<bf16>(weight[i]);
}

}  // namespace

void Momentum::check() const { expect_positive("sgd: momentum", momentum); }

void Adam::check() const {
  expect_that(beta1 >= 0 && beta1 < 1, "adam: beta1", beta1, "a number in [0, 1)");
  expect_that(beta2 >= 0 && beta2 < 1, "adam: beta2", beta2, "a number in [0, 1)");
  expect_epsilon("adam: epsilon", epsilon);
}

template <bool centered, bool with_momentum>
void RmsProp<centered, with_momentum>::check() const {
  expect_that(alpha >= 0 && alpha < 1, "rmsprop: alpha", alpha, "a number in [0, 1)");
  expect_epsilon("rmsprop: epsilon", epsilon);
  if (with_momentum) expect_positive("rmsprop: momentum", momentum);
}

template void RmsProp<false, false>::check() const;
template void RmsProp<false, true>::check() const;
template void RmsProp<true, false>::check() const;
template void RmsProp<true, true>::check() const;

void Adagrad::check() const {
  expect_epsilon("adagrad: epsilon", epsilon);
  expect_not_negative("adagrad: rate_decay", rate_decay);
  expect_not_negative("adagrad: initial_state", initial_state);
}

template <class Rule, class T>
void WeightUpdate<Rule, T>::check() const {
  const auto [rows, width] = weight.extent;
  expect_extent("weight_update: gradient columns", gradient.extent[1], width);
  if (row.present()) {
    expect_extent("weight_update: gradient rows", gradient.extent[0], row.extent[0]);
    expect_extent("weight_update: row_count elements", row_count.extent[0], 1);
  } else {
    expect_extent("weight_update: gradient rows", gradient.extent[0], rows);
  }
  for (const View<T, 2>& each : state) {
    expect_extent("weight_update: state rows", each.extent[0], rows);
    expect_extent("weight_update: state columns", each.extent[1], width);
  }
  if (working.present()) {
    expect_extent("weight_update: working rows", working.extent[0], rows);
    expect_extent("weight_update: working columns", working.extent[1], width);
  }
  expect_extent("weight_update: learning_rate elements", learning_rate.extent[0], 1);
  expect_extent("weight_update: step elements", step.extent[0], 1);
  if (gradient_scale.present()) {
    expect_extent("weight_update: gradient_scale elements", gradient_scale.extent[0], 1);
  }
  if (finite.present()) expect_extent("weight_update: finite elements", finite.extent[0], 1);
  expect_not_negative("weight_update: learning_rate_factor", learning_rate_factor);
  expect_not_negative("weight_update: weight_decay", weight_decay);
  expect_not_negative("weight_update: clip_value", clip_value);
  rule.check();
}

template <class Rule, class T>
void WeightUpdate<Rule, T>::run(const Cpu&) const {
  const Numbers of_this_step = numbers();
  if (of_this_step.skip) return;
  constexpr auto kStates = std::make_index_sequence<Rule::kStates>();
  if (!row.present()) {
    in_chunks(weight.size(), [&](std::int64_t first, std::int64_t count) {
      update(*this, of_this_step, first, gradient.data + first, count, kStates);
    });
    return;
  }
  const std::int64_t rows = row_count(0), width = weight.extent[1];
#pragma omp parallel for schedule(static) if (rows * width > kCpuChunk)
  for (std::int64_t r = 0; r < rows; ++r) {
    update(*this, of_this_step, row(r) * width, gradient.data + r * width, width, kStates);
  }
}

template <class T>
void WeightAverage<T>::check() const {
  expect_extent("weight_average: average elements", average.extent[0], weight.extent[0]);
  expect_extent("weight_average: step elements", step.extent[0], 1);
  expect_extent("weight_average: first elements", first.extent[0], 1);
  if (finite.present()) expect_extent("weight_average: finite elements", finite.extent[0], 1);
}

template <class T>
void WeightAverage<T>::run(const Cpu&) const {
  const T of_this_step = share();
  if (of_this_step == T{0}) return;
  in_chunks(weight.size(), [&](std::int64_t begin, std::int64_t count) {
    const T* const from = weight.data + begin;
    T* const to = average.data + begin;
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) update(of_this_step, from[i], to[i]);
  });
}

template struct WeightAverage<float>;
template struct WeightAverage<double>;
template struct WeightUpdate<Sgd, float>;
template struct WeightUpdate<Sgd, double>;
template struct WeightUpdate<Momentum, float>;
template struct WeightUpdate<Momentum, double>;
template struct WeightUpdate<Adam, float>;
template struct WeightUpdate<Adam, double>;
template struct WeightUpdate<RmsProp<false, false>, float>;
template struct WeightUpdate<RmsProp<false, false>, double>;
template struct WeightUpdate<RmsProp<false, true>, float>;
template struct WeightUpdate<RmsProp<false, true>, double>;
template struct WeightUpdate<RmsProp<true, false>, float>;
template struct WeightUpdate<RmsProp<true, false>, double>;
template struct WeightUpdate<RmsProp<true, true>, float>;
template struct WeightUpdate<RmsProp<true, true>, double>;
template struct WeightUpdate<Adagrad, float>;
template struct WeightUpdate<Adagrad, double>;

}  // namespace carousel
