#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/weight_update/weight_update.h"
#include "tests/reference/weight_update.h"
#include "tests/support/buffer.h"

// What tests of weight_update share: the cases, and weights with their state on a device.
namespace carousel::test {

using Settings = reference::OptimizerSettings;
inline constexpr auto kAdam = Settings::Kind::adam;
inline constexpr auto kRmsProp = Settings::Kind::rmsprop;
inline constexpr auto kAdagrad = Settings::Kind::adagrad;

template <class T>
std::vector<T> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(count);
  for (T& v : values) v = static_cast<T>(normal(random));
  return values;
}

/// Calls f with the rule that the settings mean.
template <class F>
decltype(auto) with_rule(const Settings& s, F&& f) {
  const auto rmsprop = [&]<bool centered, bool with_momentum>() {
    return f(RmsProp<centered, with_momentum>{
        .alpha = s.alpha, .epsilon = s.epsilon, .momentum = s.momentum});
  };
  if (s.kind == kAdam) {
    return f(
        Adam{.beta1 = s.beta1, .beta2 = s.beta2, .epsilon = s.epsilon, .decoupled = s.decoupled});
  }
  if (s.kind == kRmsProp && s.centered) {
    return s.momentum == 0 ? rmsprop.template operator()<true, false>()
                           : rmsprop.template operator()<true, true>();
  }
  if (s.kind == kRmsProp) {
    return s.momentum == 0 ? rmsprop.template operator()<false, false>()
                           : rmsprop.template operator()<false, true>();
  }
  if (s.kind == kAdagrad) {
    return f(Adagrad{.epsilon = s.epsilon, .rate_decay = s.rate_decay, .initial_state = s.initial});
  }
  if (s.momentum == 0) return f(Sgd{});
  return f(Momentum{.momentum = s.momentum, .nesterov = s.nesterov});
}

inline std::size_t state_count(const Settings& s) {
  return with_rule(s, [](const auto& rule) { return rule.kStates; });
}
inline Tolerance tolerance_of(const Settings& s) {
  return with_rule(s, [](const auto& rule) { return rule.kTolerance; });
}

/// A row-sparse gradient: the first `count` of the rows are used.
struct Rows {
  std::vector<std::int32_t> row;
  std::int32_t count = 0;
};

/// A matrix of weights and their state on a device, `shift` elements from an aligned address.
/// Every state begins with `initial`.
template <class T>
struct State {
  State(const Device& on, const std::vector<T>& start, std::size_t from_aligned = 0,
        std::size_t width_of_rows = 0, double initial = 0)
      : device(on),
        shift(from_aligned),
        size(start.size()),
        width(width_of_rows == 0 ? size : width_of_rows),
        weight(device, padded(start)),
        states{Buffer<T>(device, padded(std::vector<T>(size, static_cast<T>(initial)))),
               Buffer<T>(device, padded(std::vector<T>(size))),
               Buffer<T>(device, padded(std::vector<T>(size)))},
        working(device, std::vector<bf16>(shift + size, bf16(-7.0F))) {}

  std::vector<T> padded(const std::vector<T>& values) const {
    std::vector<T> result(shift, T{-7});
    result.insert(result.end(), values.begin(), values.end());
    return result;
  }
  template <class U>
  View<U, 2> view(const Buffer<U>& buffer) const {
    const auto rows = static_cast<std::int64_t>(width == 0 ? 1 : size / width);
    return {buffer.view(shift + size).data + shift, {rows, static_cast<std::int64_t>(width)}};
  }
  template <class U>
  std::vector<U> read(const Buffer<U>& buffer) const {
    const auto all = buffer.read();
    for (std::size_t i = 0; i < shift; ++i) EXPECT_EQ(static_cast<float>(all[i]), -7.0F);
    return {all.begin() + static_cast<std::ptrdiff_t>(shift), all.end()};
  }
  /// Weight, states and copy, as numbers that tell every bit pattern but those of NaN apart.
  std::vector<std::vector<double>> everything() const {
    std::vector<std::vector<double>> all{{}, as_double(read(weight))};
    for (const bf16 w : read(working)) all[0].push_back(w.bits);
    for (const Buffer<T>& each : states) all.push_back(as_double(read(each)));
    return all;
  }

  void step(const Settings& s, std::int64_t t, const std::vector<T>& values,
            std::int32_t is_finite = 1, const Rows* rows = nullptr) const {
    const auto padded_values = rows == nullptr ? padded(values) : values;
    const Buffer<T> gradient(device, padded_values);
    const Buffer<T> rate(device, std::vector{static_cast<T>(s.learning_rate / 2)});
    const Buffer<T> scale(device, std::vector{static_cast<T>(s.gradient_scale)});
    const Buffer<std::int64_t> number(device, std::vector{t});
    const Buffer<std::int32_t> finite(device, std::vector{is_finite});
    const Rows none{};
    const Buffer<std::int32_t> row(device, rows == nullptr ? none.row : rows->row);
    const Buffer<std::int32_t> count(device, std::vector{rows == nullptr ? 0 : rows->count});
    with_rule(s, [&]<class Rule>(const Rule& rule) {
      WeightUpdate<Rule, T> op{.rule = rule,
                               .weight = view(weight),
                               .gradient = view(gradient),
                               .working = view(working),
                               .learning_rate = rate.view(1),
                               .step = number.view(1),
                               .gradient_scale = scale.view(1),
                               .finite = finite.view(1),
                               .learning_rate_factor = 2,
                               .weight_decay = s.weight_decay,
                               .clip_value = s.clip_value};
      for (std::size_t i = 0; i < Rule::kStates; ++i) op.state[i] = view(states[i]);
      if (rows != nullptr) {
        op.gradient = gradient.view(rows->row.size(), width);
        op.row = row.view(rows->row.size());
        op.row_count = count.view(1);
      }
      run(device, op);
    });
  }

  Device device;
  std::size_t shift, size, width;
  Buffer<T> weight;
  std::array<Buffer<T>, 3> states;
  Buffer<bf16> working;
};

// A new rule is a few rows here.
inline const std::vector<Settings> kCases{
    {.learning_rate = 0.1},
    {.learning_rate = 0.1, .weight_decay = 0.02, .gradient_scale = 0.3},
    {.learning_rate = 0.05, .momentum = 0.9},
    {.learning_rate = 0.05, .weight_decay = 0.01, .clip_value = 0.4, .momentum = 0.8},
    {.learning_rate = 0.02,
     .weight_decay = 0.1,
     .clip_value = 1,
     .gradient_scale = 0.7,
     .momentum = 0.9,
     .nesterov = true},
    {.kind = kAdam, .learning_rate = 0.01},
    {.kind = kAdam, .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3},
    {.kind = kAdam,
     .learning_rate = 0.02,
     .weight_decay = 0.1,
     .clip_value = 0.5,
     .gradient_scale = 0.6},
    {.kind = kAdam, .learning_rate = 0.01, .weight_decay = 0.3, .decoupled = true},
    {.kind = kAdam,
     .learning_rate = 0.05,
     .weight_decay = 0.01,
     .clip_value = 1,
     .gradient_scale = 0.9,
     .beta1 = 0,
     .decoupled = true},
    {.kind = kRmsProp, .learning_rate = 0.01},
    {.kind = kRmsProp,
     .learning_rate = 0.02,
     .weight_decay = 0.1,
     .clip_value = 0.5,
     .gradient_scale = 0.6,
     .momentum = 0.8,
     .epsilon = 1e-3,
     .alpha = 0.9},
    {.kind = kRmsProp, .learning_rate = 0.01, .alpha = 0.9, .centered = true},
    {.kind = kRmsProp,
     .learning_rate = 0.01,
     .weight_decay = 0.1,
     .momentum = 0.9,
     .epsilon = 1e-4,
     .alpha = 0.95,
     .centered = true},
    {.kind = kAdagrad, .learning_rate = 0.1, .epsilon = 1e-10},
    {.kind = kAdagrad,
     .learning_rate = 0.2,
     .weight_decay = 0.1,
     .clip_value = 1,
     .gradient_scale = 0.9,
     .rate_decay = 0.1,
     .initial = 0.5}};

}  // namespace carousel::test
