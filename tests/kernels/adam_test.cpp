#include "kernels/adam/adam.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/adam.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using reference::AdamOptimizer;
using reference::AdamSettings;
using test::as_double;
using test::Buffer;

template <class T>
std::vector<T> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(count);
  for (T& v : values) v = static_cast<T>(normal(random));
  return values;
}

/// Weights and their state on a device, `shift` elements from an aligned address.
template <class T>
struct State {
  State(const Device& on, const std::vector<T>& start, std::size_t from_aligned = 0)
      : device(on),
        shift(from_aligned),
        size(start.size()),
        weight(device, padded(start)),
        m(device, padded(std::vector<T>(size))),
        v(device, padded(std::vector<T>(size))),
        working(device, std::vector<bf16>(shift + size, bf16(-7.0F))) {}

  std::vector<T> padded(const std::vector<T>& values) const {
    std::vector<T> result(shift, T{-7});
    result.insert(result.end(), values.begin(), values.end());
    return result;
  }
  template <class U>
  View<U, 1> view(const Buffer<U>& buffer) const {
    return {buffer.view(shift + size).data + shift, {static_cast<std::int64_t>(size)}};
  }
  template <class U>
  std::vector<U> read(const Buffer<U>& buffer) const {
    const auto all = buffer.read();
    for (std::size_t i = 0; i < shift; ++i) EXPECT_EQ(static_cast<float>(all[i]), -7.0F);
    return {all.begin() + static_cast<std::ptrdiff_t>(shift), all.end()};
  }

  void step(const AdamSettings& s, std::int64_t t, const std::vector<T>& values,
            std::int32_t is_finite = 1) const {
    const Buffer<T> gradient(device, padded(values));
    const Buffer<T> rate(device, std::vector{static_cast<T>(s.learning_rate)});
    const Buffer<T> scale(device, std::vector{static_cast<T>(s.gradient_scale)});
    const Buffer<std::int64_t> number(device, std::vector{t});
    const Buffer<std::int32_t> finite(device, std::vector{is_finite});
    run(device, Adam<T>{.weight = view(weight),
                        .gradient = view(gradient),
                        .first_moment = view(m),
                        .second_moment = view(v),
                        .working = view(working),
                        .learning_rate = rate.view(1),
                        .step = number.view(1),
                        .gradient_scale = scale.view(1),
                        .finite = finite.view(1),
                        .beta1 = s.beta1,
                        .beta2 = s.beta2,
                        .epsilon = s.epsilon,
                        .weight_decay = s.weight_decay,
                        .clip_value = s.clip_value,
                        .decoupled = s.decoupled});
  }

  Device device;
  std::size_t shift, size;
  Buffer<T> weight, m, v;
  Buffer<bf16> working;
};

std::vector<AdamSettings> every_kind() {
  return {{.learning_rate = 0.01},
          {.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3},
          {.learning_rate = 0.02, .weight_decay = 0.1, .clip_value = 0.5, .gradient_scale = 0.6},
          {.learning_rate = 0.01, .weight_decay = 0.3, .decoupled = true},
          {.learning_rate = 0.05,
           .beta1 = 0,
           .weight_decay = 0.01,
           .clip_value = 1,
           .gradient_scale = 0.9,
           .decoupled = true}};
}

class AdamOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, AdamOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

// Worked by hand: the bias-corrected moments of the first update are g and g², so that it moves
// every weight by the learning rate against the gradient's sign, however large the gradient is.
TEST_P(AdamOn, TheFirstStepIsTheLearningRate) {
  const State<float> state(GetParam(), {1, 1, 1, 1});
  state.step({.learning_rate = 0.25}, 1, {1e-3F, -5, 1e4F, 0});
  EXPECT_TRUE(test::close(state.read(state.weight), std::vector<double>{0.75, 1.25, 0.75, 1},
                          {.absolute = 4e-6}));
  EXPECT_TRUE(test::close(state.read(state.m), std::vector<double>{1e-4, -0.5, 1e3, 0},
                          {.relative = 2e-7}));
  EXPECT_TRUE(test::close(state.read(state.v), std::vector<double>{1e-9, 0.025, 1e5, 0},
                          {.relative = 4e-7}));
}

TEST_P(AdamOn, TwoStepsWorkedByHand) {
  // β1 = β2 = 1/2, ε = 1, rate 1. t = 1: m = 2, v = 8, m̂ = 4, √v̂ = 4, w −= 4/5.
  // t = 2, g = 0: m = 1, v = 4, m̂ = 1/(3/4) = 4/3, √v̂ = √(16/3), w −= (4/3)/(1 + 4/√3).
  const State<float> state(GetParam(), {1});
  const AdamSettings s{.learning_rate = 1, .beta1 = 0.5, .beta2 = 0.5, .epsilon = 1};
  state.step(s, 1, {4});
  EXPECT_FLOAT_EQ(state.read(state.weight)[0], 0.2F);
  state.step(s, 2, {0});
  EXPECT_EQ(state.read(state.m)[0], 1.0F);
  EXPECT_EQ(state.read(state.v)[0], 4.0F);
  EXPECT_NEAR(state.read(state.weight)[0], 0.2 - 4.0 / 3 / (1 + 4 / std::sqrt(3.0)), 1e-6);
}

TEST_P(AdamOn, DecoupledDecayLeavesTheMomentsAlone) {
  const State<float> coupled(GetParam(), {2}), decoupled(GetParam(), {2});
  AdamSettings s{.learning_rate = 0.5, .weight_decay = 0.25};
  coupled.step(s, 1, {0});  // the decay is the gradient: a full step of the learning rate
  EXPECT_NEAR(coupled.read(coupled.weight)[0], 1.5, 1e-6);
  s.decoupled = true;
  decoupled.step(s, 1, {0});  // the weight shrinks by 1/8
  EXPECT_EQ(decoupled.read(decoupled.weight)[0], 1.75F);
  EXPECT_EQ(decoupled.read(decoupled.m)[0], 0.0F);
}

TEST_P(AdamOn, FollowsTheOracleForTwentySteps) {
  for (const AdamSettings& s : every_kind()) {
    // None, one, around a thread's eight, a warp and a block's 2,048.
    for (const std::size_t size : {0, 1, 7, 8, 9, 33, 2047, 2049}) {
      const auto start = random_values<float>(size, 1);
      const State<float> state(GetParam(), start, size % 2);
      AdamOptimizer want(s, as_double(start));
      for (unsigned t = 1; t <= 20; ++t) {
        const auto gradient = random_values<float>(size, 100 + t);
        state.step(s, t, gradient);
        want.step(as_double(gradient), t);
      }
      // Twenty updates' rounding errors: each is a fraction of a step's tolerance.
      const Tolerance tolerance{.absolute = 20 * kAdamTolerance.absolute,
                                .relative = 20 * kAdamTolerance.relative};
      const auto weight = state.read(state.weight);
      EXPECT_TRUE(test::close(weight, want.weight, tolerance));
      EXPECT_TRUE(test::close(state.read(state.m), want.m, tolerance));
      EXPECT_TRUE(test::close(state.read(state.v), want.v, tolerance));
      const auto working = state.read(state.working);
      for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(working[i].bits, bf16(weight[i]).bits);
    }
  }
}

TEST(Adam, FollowsTheOracleInDouble) {
  for (const AdamSettings& s : every_kind()) {
    const auto start = random_values<double>(100, 1);
    const State<double> state(Cpu{}, start);
    AdamOptimizer want(s, start);
    for (unsigned t = 1; t <= 20; ++t) {
      const auto gradient = random_values<double>(100, 100 + t);
      state.step(s, t, gradient);
      want.step(gradient, t);
    }
    EXPECT_TRUE(test::close(state.read(state.weight), want.weight, {.absolute = 1e-12}));
  }
}

// With the same gradient at every step the corrected moments are that gradient and its square, so
// each update is rate·g/(|g| + ε): the closed form of the whole trajectory.
TEST(Adam, AConstantGradientMovesTheWeightByTheRateEachStep) {
  const State<double> state(Cpu{}, {0, 0});
  for (std::int64_t t = 1; t <= 1000; ++t) state.step({.learning_rate = 1e-3}, t, {3, -1e-4});
  EXPECT_TRUE(test::close(state.read(state.weight),
                          std::vector<double>{-1.0 * 3 / (3 + 1e-8), 1e-4 / (1e-4 + 1e-8)},
                          {.relative = 1e-9}));
}

TEST(BiasCorrection, IsAsAccurateAsPromised) {
  for (const double beta : {0.5, 0.9, 0.95, 0.99, 0.999}) {
    for (const std::int64_t t : {1, 2, 3, 7, 10, 1000, 12'345, 1'000'000}) {
      const long double want =
          -std::expm1(static_cast<long double>(t) * std::log(static_cast<long double>(beta)));
      EXPECT_NEAR(bias_correction(beta, t) / static_cast<double>(want), 1, 1e-12);
    }
    EXPECT_EQ(bias_correction(beta, INT64_MAX), 1);
  }
  EXPECT_EQ(bias_correction(0, 1), 1);
  EXPECT_TRUE(std::isnan(bias_correction(0.9, 0)));
}

TEST_P(AdamOn, AStepNumberBelowOneIsPoison) {
  for (const std::int64_t t : {std::int64_t{0}, std::int64_t{-3}, INT64_MIN}) {
    const State<float> state(GetParam(), {1});
    state.step({.learning_rate = 0.1}, t, {1});
    EXPECT_TRUE(std::isnan(state.read(state.weight)[0]));
  }
}

TEST_P(AdamOn, ASkippedStepChangesNoBit) {
  const auto start = random_values<float>(3001, 4);
  const State<float> state(GetParam(), start);
  const AdamSettings s{.learning_rate = 0.1, .weight_decay = 0.1, .decoupled = true};
  state.step(s, 1, random_values<float>(3001, 5));
  const auto weight = state.read(state.weight), m = state.read(state.m), v = state.read(state.v);
  const auto working = state.read(state.working);
  state.step(s, 2, std::vector<float>(3001, NAN), /*is_finite=*/0);
  EXPECT_EQ(state.read(state.weight), weight);
  EXPECT_EQ(state.read(state.m), m);
  EXPECT_EQ(state.read(state.v), v);
  const auto after = state.read(state.working);
  for (std::size_t i = 0; i < after.size(); ++i) ASSERT_EQ(after[i].bits, working[i].bits);
}

TEST_P(AdamOn, PaddingStaysZeroAndNaNIsNotSilent) {
  for (const bool decoupled : {false, true}) {
    const State<float> state(GetParam(), {0, 1});
    state.step({.learning_rate = 0.1, .weight_decay = 0.5, .clip_value = 1, .decoupled = decoupled},
               1, {0, NAN});
    EXPECT_EQ(state.read(state.weight)[0], 0.0F);
    EXPECT_TRUE(std::isnan(state.read(state.weight)[1]));
  }
}

TEST(Adam, RefusesWrongArguments) {
  const Device cpu = Cpu{};
  const Buffer<float> a(cpu, 4), b(cpu, 4), c(cpu, 4), d(cpu, 4), rate(cpu, 1);
  const Buffer<std::int64_t> step(cpu, 1);
  const Adam<float> good{.weight = a.view(4),
                         .gradient = b.view(4),
                         .first_moment = c.view(4),
                         .second_moment = d.view(4),
                         .learning_rate = rate.view(1),
                         .step = step.view(1)};
  EXPECT_NO_THROW(good.check());
  auto bad = good;
  bad.gradient = rate.view(1);
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.second_moment = {};
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.step = {};
  EXPECT_THROW(bad.check(), ShapeError);
  for (const double beta : {-0.1, 1.0, std::nan("")}) {
    bad = good;
    bad.beta1 = beta;
    EXPECT_THROW(bad.check(), ConfigError);
    bad = good;
    bad.beta2 = beta;
    EXPECT_THROW(bad.check(), ConfigError);
  }
  for (const double epsilon : {0.0, -1.0, 1e-60, std::nan("")}) {
    bad = good;
    bad.epsilon = epsilon;
    EXPECT_THROW(bad.check(), ConfigError);
  }
}

TEST(Adam, Sweep) {
  double worst = 0;
  for (const Device& device : test::devices()) {
    for (unsigned seed = 0; seed < 12; ++seed) {
      for (const AdamSettings& s : every_kind()) {
        const auto start = random_values<float>(2000, seed);
        const State<float> state(device, start);
        AdamSettings stored = s;  // as the device sees them
        stored.learning_rate = static_cast<float>(s.learning_rate);
        stored.gradient_scale = static_cast<float>(s.gradient_scale);
        AdamOptimizer want(stored, as_double(start));
        for (unsigned t = 1; t <= 2; ++t) {  // the second update has moments
          const auto gradient = random_values<float>(2000, 1000 * t + seed);
          state.step(s, t, gradient);
          want.step(as_double(gradient), t);
        }
        worst = std::max({worst,
                          test::worst_excess(state.read(state.weight), want.weight, kAdamTolerance),
                          test::worst_excess(state.read(state.m), want.m, kAdamTolerance),
                          test::worst_excess(state.read(state.v), want.v, kAdamTolerance)});
      }
    }
  }
  test::expect_recorded(worst, kAdamTolerance);
}

}  // namespace
}  // namespace carousel
