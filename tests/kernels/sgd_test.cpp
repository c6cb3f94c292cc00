#include "kernels/sgd/sgd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/sgd.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using reference::SgdOptimizer;
using reference::SgdSettings;
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
        velocity(device, padded(std::vector<T>(size))),
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

  void step(const SgdSettings& s, const std::vector<T>& values, std::int32_t is_finite = 1) const {
    const Buffer<T> gradient(device, padded(values));
    const Buffer<T> rate(device, std::vector{static_cast<T>(s.learning_rate)});
    const Buffer<T> scale(device, std::vector{static_cast<T>(s.gradient_scale)});
    const Buffer<std::int32_t> finite(device, std::vector{is_finite});
    run(device, Sgd<T>{.weight = view(weight),
                       .gradient = view(gradient),
                       .velocity = s.momentum != 0 ? view(velocity) : View<T, 1>{},
                       .working = view(working),
                       .learning_rate = rate.view(1),
                       .gradient_scale = scale.view(1),
                       .finite = finite.view(1),
                       .momentum = s.momentum,
                       .weight_decay = s.weight_decay,
                       .clip_value = s.clip_value,
                       .nesterov = s.nesterov});
  }

  Device device;
  std::size_t shift, size;
  Buffer<T> weight, velocity;
  Buffer<bf16> working;
};

std::vector<SgdSettings> every_kind() {
  return {{.learning_rate = 0.1},
          {.learning_rate = 0.1, .weight_decay = 0.02, .gradient_scale = 0.3},
          {.learning_rate = 0.05, .momentum = 0.9},
          {.learning_rate = 0.05, .momentum = 0.8, .weight_decay = 0.01, .clip_value = 0.4},
          {.learning_rate = 0.02,
           .momentum = 0.9,
           .weight_decay = 0.1,
           .clip_value = 1,
           .gradient_scale = 0.7,
           .nesterov = true}};
}

class SgdOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, SgdOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(SgdOn, TwoStepsWorkedByHand) {
  // Momentum 1/2, decay 1/4, rate 1/2, all exact in float.
  const State<float> state(GetParam(), {1, -2});
  const SgdSettings s{.learning_rate = 0.5, .momentum = 0.5, .weight_decay = 0.25};
  state.step(s, {1, 1});  // g = 1.25, 0.5
  EXPECT_EQ(state.read(state.velocity), (std::vector<float>{1.25F, 0.5F}));
  EXPECT_EQ(state.read(state.weight), (std::vector<float>{0.375F, -2.25F}));
  state.step(s, {0, 1});  // g = 0.09375, 0.4375; b = 0.71875, 0.6875
  EXPECT_EQ(state.read(state.velocity), (std::vector<float>{0.71875F, 0.6875F}));
  EXPECT_EQ(state.read(state.weight), (std::vector<float>{0.015625F, -2.59375F}));
}

TEST_P(SgdOn, NesterovLooksAhead) {  // worked by hand: g + μ·b = 1 + 1/2
  const State<float> state(GetParam(), {0});
  state.step({.learning_rate = 1, .momentum = 0.5, .nesterov = true}, {1});
  EXPECT_EQ(state.read(state.weight), (std::vector<float>{-1.5F}));
}

TEST_P(SgdOn, ClipsAfterScalingAndBeforeDecay) {  // worked by hand
  const State<float> state(GetParam(), {4, 4, 4});
  // 8/4 = 2 is clipped to 1, −8 to −1, 2/4 is not; then decay adds 4/2.
  state.step({.learning_rate = 1, .weight_decay = 0.5, .clip_value = 1, .gradient_scale = 0.25},
             {8, -32, 2});
  EXPECT_EQ(state.read(state.weight), (std::vector<float>{1, 3, 1.5F}));
}

TEST_P(SgdOn, FollowsTheOracleForTwentySteps) {
  for (const SgdSettings& s : every_kind()) {
    // None, one, around a thread's eight, a warp and a block's 2,048.
    for (const std::size_t size : {0, 1, 7, 8, 9, 33, 2047, 2049}) {
      const auto start = random_values<float>(size, 1);
      const State<float> state(GetParam(), start, size % 2);
      SgdOptimizer want(s, as_double(start));
      for (unsigned t = 1; t <= 20; ++t) {
        const auto gradient = random_values<float>(size, 100 + t);
        state.step(s, gradient);
        want.step(as_double(gradient));
      }
      // Twenty updates' rounding errors: each is a fraction of a step's tolerance.
      const Tolerance tolerance{.absolute = 20 * kSgdTolerance.absolute,
                                .relative = 20 * kSgdTolerance.relative};
      const auto weight = state.read(state.weight);
      EXPECT_TRUE(test::close(weight, want.weight, tolerance));
      if (s.momentum != 0) {
        EXPECT_TRUE(test::close(state.read(state.velocity), want.velocity, tolerance));
      }
      const auto working = state.read(state.working);
      for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(working[i].bits, bf16(weight[i]).bits);
    }
  }
}

// A quadratic bowl has a closed form: without momentum w_t = w_0·(1 − rate·curvature)^t.
TEST(Sgd, DescendsAQuadraticBowlAsTheClosedFormSays) {
  const State<double> state(Cpu{}, {1, -3, 0.5});
  for (int t = 0; t < 50; ++t) {
    auto gradient = state.read(state.weight);
    for (double& g : gradient) g *= 0.8;
    state.step({.learning_rate = 0.1}, gradient);
  }
  const double factor = std::pow(1 - 0.08, 50);
  EXPECT_TRUE(test::close(state.read(state.weight),
                          std::vector<double>{factor, -3 * factor, 0.5 * factor},
                          {.absolute = 0, .relative = 1e-13}));
}

TEST(Sgd, FollowsTheOracleInDouble) {
  for (const SgdSettings& s : every_kind()) {
    const auto start = random_values<double>(100, 1);
    const State<double> state(Cpu{}, start);
    SgdOptimizer want(s, start);
    for (unsigned t = 1; t <= 20; ++t) {
      const auto gradient = random_values<double>(100, 100 + t);
      state.step(s, gradient);
      want.step(gradient);
    }
    EXPECT_TRUE(test::close(state.read(state.weight), want.weight, {.absolute = 1e-14}));
  }
}

TEST_P(SgdOn, ASkippedStepChangesNoBit) {
  const auto start = random_values<float>(3001, 4);
  const State<float> state(GetParam(), start);
  const SgdSettings s{.learning_rate = 0.1, .momentum = 0.9};
  state.step(s, random_values<float>(3001, 5));
  const auto weight = state.read(state.weight), velocity = state.read(state.velocity);
  const auto working = state.read(state.working);
  state.step(s, std::vector<float>(3001, NAN), /*is_finite=*/0);
  EXPECT_EQ(state.read(state.weight), weight);
  EXPECT_EQ(state.read(state.velocity), velocity);
  const auto after = state.read(state.working);
  for (std::size_t i = 0; i < after.size(); ++i) ASSERT_EQ(after[i].bits, working[i].bits);
}

TEST_P(SgdOn, NaNReachesTheWeightAndClippingKeepsIt) {
  const State<float> state(GetParam(), {1, 1});
  state.step({.learning_rate = 0.1, .clip_value = 1}, {NAN, 0});
  const auto weight = state.read(state.weight);
  EXPECT_TRUE(std::isnan(weight[0]));
  EXPECT_EQ(weight[1], 1.0F);
}

TEST(Sgd, RefusesWrongArguments) {
  const Device cpu = Cpu{};
  const Buffer<float> a(cpu, 4), b(cpu, 4), rate(cpu, 1);
  const Sgd<float> good{.weight = a.view(4), .gradient = b.view(4), .learning_rate = rate.view(1)};
  EXPECT_NO_THROW(good.check());
  auto bad = good;
  bad.gradient = rate.view(1);
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.learning_rate = {};
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.momentum = 0.9;  // and no velocity
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.velocity = b.view(4);  // and no momentum
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.nesterov = true;
  EXPECT_THROW(bad.check(), ConfigError);
  bad = good;
  bad.weight_decay = -1;
  EXPECT_THROW(bad.check(), ConfigError);
  bad = good;
  bad.clip_value = std::nan("");
  EXPECT_THROW(bad.check(), ConfigError);
}

TEST(Sgd, Sweep) {
  double worst = 0;
  for (const Device& device : test::devices()) {
    for (unsigned seed = 0; seed < 12; ++seed) {
      for (const SgdSettings& s : every_kind()) {
        const auto start = random_values<float>(2000, seed);
        const auto gradient = random_values<float>(2000, 1000 + seed);
        const State<float> state(device, start);
        SgdSettings stored = s;  // as the device sees them
        stored.learning_rate = static_cast<float>(s.learning_rate);
        stored.gradient_scale = static_cast<float>(s.gradient_scale);
        SgdOptimizer want(stored, as_double(start));
        for (int t = 0; t < 2; ++t) {  // the second update has a velocity
          state.step(s, gradient);
          want.step(as_double(gradient));
        }
        worst = std::max(worst,
                         test::worst_excess(state.read(state.weight), want.weight, kSgdTolerance));
        if (s.momentum != 0) {
          worst = std::max(
              worst, test::worst_excess(state.read(state.velocity), want.velocity, kSgdTolerance));
        }
      }
    }
  }
  test::expect_recorded(worst, kSgdTolerance);
}

}  // namespace
}  // namespace carousel
