#include "kernels/weight_update/weight_update.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/kernels/weight_update_problem.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;
using test::kAdagrad;
using test::kAdam;
using test::kCases;
using test::kRmsProp;
using test::random_values;
using test::Rows;
using test::Settings;
using test::State;
using test::state_count;
using test::tolerance_of;

class WeightUpdateOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, WeightUpdateOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

/// Weights and the first state after each of a few updates.
struct Worked {
  const char* why;
  Settings settings;
  std::vector<float> start;
  struct Update {
    std::vector<float> gradient;
    std::vector<double> weight, first{}, second{};
  };
  std::vector<Update> updates;
  Tolerance tolerance{};  ///< none: exact in float
};

TEST_P(WeightUpdateOn, IsAsWorkedByHand) {
  const std::vector<Worked> cases{
      {"momentum 1/2, decay 1/4, rate 1/2; g = 1.25, 0.5; then g = 0.09375, 0.4375",
       {.learning_rate = 0.5, .weight_decay = 0.25, .momentum = 0.5},
       {1, -2},
       {{{1, 1}, {0.375, -2.25}, {1.25, 0.5}}, {{0, 1}, {0.015625, -2.59375}, {0.71875, 0.6875}}}},
      {"nesterov looks ahead: g + momentum·b = 1 + 1/2",
       {.learning_rate = 1, .momentum = 0.5, .nesterov = true},
       {0},
       {{{1}, {-1.5}, {1}}}},
      {"8/4 is clipped to 1, −32/4 to −1, 2/4 is not; then decay adds 4/2",
       {.learning_rate = 1, .weight_decay = 0.5, .clip_value = 1, .gradient_scale = 0.25},
       {4, 4, 4},
       {{{8, -32, 2}, {1, 3, 1.5}}}},
      {"Adam's corrected moments of the first update are g and g²: a step of the learning rate",
       {.kind = kAdam, .learning_rate = 0.25},
       {1, 1, 1, 1},
       {{{1e-3F, -5, 1e4F, 0}, {0.75, 1.25, 0.75, 1}, {1e-4, -0.5, 1e3, 0}, {1e-9, 0.025, 1e5, 0}}},
       {.absolute = 4e-6, .relative = 4e-7}},
      // t = 1: m = 2, v = 8, m̂ = 4, √v̂ = 4. t = 2: m = 1, v = 4, m̂ = 4/3, √v̂ = √(16/3).
      {"β1 = β2 = 1/2, ε = 1, rate 1",
       {.kind = kAdam, .learning_rate = 1, .beta1 = 0.5, .beta2 = 0.5, .epsilon = 1},
       {1},
       {{{4}, {0.2}, {2}, {8}}, {{0}, {0.2 - 4.0 / 3 / (1 + 4 / std::sqrt(3.0))}, {1}, {4}}},
       {.absolute = 1e-6}},
      {"coupled decay is part of the gradient: a full step of the learning rate",
       {.kind = kAdam, .learning_rate = 0.5, .weight_decay = 0.25},
       {2},
       {{{0}, {1.5}, {0.05}}},
       {.absolute = 1e-6}},
      {"decoupled decay shrinks the weight by 1/8 and leaves the moments alone",
       {.kind = kAdam, .learning_rate = 0.5, .weight_decay = 0.25, .decoupled = true},
       {2},
       {{{0}, {1.75}, {0}, {0}}}},
      // v = 16/4, then 3/4·4 + 16/4 = 7.
      {"RMSProp, α = 3/4, ε = 2",
       {.kind = kRmsProp, .learning_rate = 1, .epsilon = 2, .alpha = 0.75},
       {1},
       {{{4}, {0}, {4}}, {{4}, {-4 / (std::sqrt(7.0) + 2)}, {7}}},
       {.absolute = 1e-6}},
      // u = 4/(√4 + 2) = 1, then 0: the buffer is 1, then 1/2.
      {"RMSProp with momentum 1/2 moves on without a gradient",
       {.kind = kRmsProp, .learning_rate = 1, .momentum = 0.5, .epsilon = 2, .alpha = 0.75},
       {1},
       {{{4}, {0}, {4}, {1}}, {{0}, {-0.5}, {3}, {0.5}}}},
      // v = 8, m = 2: √(8 − 4) + 2 = 4.
      {"centered RMSProp divides by the deviation",
       {.kind = kRmsProp, .learning_rate = 1, .epsilon = 2, .alpha = 0.5, .centered = true},
       {1},
       {{{4}, {0}, {8}, {2}}}},
      // sums 9, 25; steps of 3/(3 + 1), and of half the rate 4/(5 + 1).
      {"Adagrad, ε = 1, the rate halved at the second update",
       {.kind = kAdagrad, .learning_rate = 1, .epsilon = 1, .rate_decay = 1},
       {0},
       {{{3}, {-0.75}, {9}}, {{-4}, {-0.75 + 2.0 / 6}, {25}}},
       {.absolute = 1e-6}},
      {"Adagrad from a sum of 7: 3/(√16 + 2)",
       {.kind = kAdagrad, .learning_rate = 1, .epsilon = 2, .initial = 7},
       {0},
       {{{3}, {-0.5}, {16}}}}};
  for (const Worked& each : cases) {
    const State<float> state(GetParam(), each.start, 0, 0, each.settings.initial);
    std::int64_t t = 0;
    for (const Worked::Update& update : each.updates) {
      state.step(each.settings, ++t, update.gradient);
      EXPECT_TRUE(test::close(state.read(state.weight), update.weight, each.tolerance)) << each.why;
      if (!update.first.empty()) {
        EXPECT_TRUE(test::close(state.read(state.states[0]), update.first, each.tolerance))
            << each.why;
      }
      if (!update.second.empty()) {
        EXPECT_TRUE(test::close(state.read(state.states[1]), update.second, each.tolerance))
            << each.why;
      }
    }
  }
}

/// Twenty updates of `size` random weights, beside the oracle's.
template <class T>
void follow(const Device& device, const Settings& s, std::size_t size, const Tolerance& once) {
  const auto start = random_values<T>(size, 1);
  const State<T> state(device, start, size % 2, 0, s.initial);
  reference::Optimizer want(s, as_double(start));
  for (unsigned t = 1; t <= 20; ++t) {
    const auto gradient = random_values<T>(size, 100 + t);
    state.step(s, t, gradient);
    want.step(as_double(gradient), t);
  }
  // Twenty updates' rounding errors: each is a fraction of a step's tolerance.
  const Tolerance all{.absolute = 20 * once.absolute, .relative = 20 * once.relative};
  const auto weight = state.read(state.weight);
  EXPECT_TRUE(test::close(weight, want.weight, all));
  for (std::size_t i = 0; i < state_count(s); ++i) {
    EXPECT_TRUE(test::close(state.read(state.states[i]), want.state[i], all)) << "state " << i;
  }
  const auto working = state.read(state.working);
  for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(working[i].bits, bf16(weight[i]).bits);
}

TEST_P(WeightUpdateOn, FollowsTheOracleForTwentySteps) {
  for (const Settings& s : kCases) {
    // None, one, around a thread's eight, a warp and a block's 2,048.
    for (const std::size_t size : {0, 1, 7, 8, 9, 33, 2047, 2049}) {
      follow<float>(GetParam(), s, size, tolerance_of(s));
    }
  }
}

TEST(WeightUpdate, FollowsTheOracleInDouble) {
  for (const Settings& s : kCases) follow<double>(Cpu{}, s, 100, {.absolute = 5e-14});
}

// A quadratic bowl has a closed form: w_t = w_0·(1 − rate·curvature)^t.
TEST(WeightUpdate, SgdDescendsAQuadraticBowlAsTheClosedFormSays) {
  const State<double> state(Cpu{}, {1, -3, 0.5});
  for (int t = 0; t < 50; ++t) {
    auto gradient = state.read(state.weight);
    for (double& g : gradient) g *= 0.8;
    state.step({.learning_rate = 0.1}, t, gradient);
  }
  const double factor = std::pow(1 - 0.08, 50);
  EXPECT_TRUE(test::close(state.read(state.weight),
                          std::vector<double>{factor, -3 * factor, 0.5 * factor},
                          {.absolute = 0, .relative = 1e-13}));
}

// With the same gradient at every step Adam's corrected moments are that gradient and its square,
// so each update is rate·g/(|g| + ε).
TEST(WeightUpdate, AConstantGradientMovesAdamByTheRateEachStep) {
  const State<double> state(Cpu{}, {0, 0});
  const Settings s{.kind = kAdam, .learning_rate = 1e-3};
  for (std::int64_t t = 1; t <= 1000; ++t) state.step(s, t, {3, -1e-4});
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

TEST_P(WeightUpdateOn, AStepNumberBelowOneIsPoison) {
  for (const Settings::Kind kind : {kAdam, kAdagrad}) {
    for (const std::int64_t t : {std::int64_t{0}, std::int64_t{-3}, INT64_MIN}) {
      const State<float> state(GetParam(), {1});
      state.step({.kind = kind, .learning_rate = 0.1}, t, {1});
      EXPECT_TRUE(std::isnan(state.read(state.weight)[0]));
    }
  }
}

// The variance of equal gradients is 0, and rounding may make it negative: no root of that.
TEST_P(WeightUpdateOn, EqualGradientsDoNotBreakCenteredRmsProp) {
  const Settings s{
      .kind = kRmsProp, .learning_rate = 1e-3, .epsilon = 1e-3, .alpha = 0.5, .centered = true};
  const State<float> state(GetParam(), std::vector<float>(100));
  std::vector<float> gradient = random_values<float>(100, 1);
  bool negative = false;
  for (std::int64_t t = 1; t <= 100; ++t) {
    state.step(s, t, gradient);
    const auto square = state.read(state.states[0]), mean = state.read(state.states[1]);
    for (std::size_t i = 0; i < square.size(); ++i) {
      negative = negative || square[i] < mean[i] * mean[i];
    }
  }
  EXPECT_TRUE(negative) << "not tested";
  for (const float weight : state.read(state.weight)) EXPECT_TRUE(std::isfinite(weight));
}

TEST_P(WeightUpdateOn, ASkippedStepChangesNoBit) {
  for (const Settings& s : kCases) {
    const State<float> state(GetParam(), random_values<float>(3001, 4));
    state.step(s, 1, random_values<float>(3001, 5));
    const auto before = state.everything();
    state.step(s, 2, std::vector<float>(3001, NAN), /*is_finite=*/0);
    EXPECT_EQ(state.everything(), before);
    const Rows rows{.row = {0}, .count = 1};
    state.step(s, 2, std::vector<float>(3001, NAN), /*is_finite=*/0, &rows);
    EXPECT_EQ(state.everything(), before);
  }
}

TEST_P(WeightUpdateOn, PaddingStaysZeroAndNaNIsNotSilent) {
  for (const Settings& s : kCases) {
    const State<float> state(GetParam(), {0, 1});
    state.step(s, 1, {0, NAN});
    EXPECT_EQ(state.read(state.weight)[0], 0.0F);
    EXPECT_TRUE(std::isnan(state.read(state.weight)[1]));
  }
}

// Against an update of all rows whose gradient is the same in the touched ones: equal bits there,
// and not a bit changed elsewhere.
TEST_P(WeightUpdateOn, OfRowsEqualsTheDenseOneThereAndTouchesNothingElse) {
  constexpr std::size_t kVocab = 14;
  // In the order of no sort, fewer than there is room for.
  const Rows rows{.row = {7, 13, 0, 12, 4, -1, 1'000'000'000}, .count = 5};
  for (const Settings& s : kCases) {
    for (const std::size_t width : {1, 7, 8, 64, 520, 2049}) {
      const auto start = random_values<float>(kVocab * width, 1);
      const State<float> dense(GetParam(), start, 0, width), sparse(GetParam(), start, 0, width);
      for (unsigned t = 1; t <= 2; ++t) {  // the second update has states
        auto values = random_values<float>(rows.row.size() * width, 100 + t);
        std::fill(values.begin() + static_cast<std::ptrdiff_t>(rows.count) * width, values.end(),
                  NAN);
        std::vector<float> spread(kVocab * width, 0.5F);
        for (std::size_t r = 0; r < static_cast<std::size_t>(rows.count); ++r) {
          std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(r * width), width,
                      spread.begin() + rows.row[r] * static_cast<std::ptrdiff_t>(width));
        }
        auto want = sparse.everything();
        sparse.step(s, t, values, 1, &rows);
        dense.step(s, t, spread);
        const auto got = sparse.everything(), all = dense.everything();
        for (std::size_t part = 0; part < want.size(); ++part) {
          for (std::size_t r = 0; r < static_cast<std::size_t>(rows.count); ++r) {
            const auto at = rows.row[r] * static_cast<std::ptrdiff_t>(width);
            std::copy_n(all[part].begin() + at, width, want[part].begin() + at);
          }
        }
        ASSERT_EQ(got, want) << "width " << width << ", update " << t;
      }
    }
  }
}

TEST_P(WeightUpdateOn, OfNoRowsDoesNothing) {
  for (const Rows& rows : {Rows{}, Rows{.row = {0, 1}, .count = 0}}) {
    const State<float> state(GetParam(), {1, 2, 3, 4}, 0, 2);
    const auto before = state.everything();
    state.step(kCases.back(), 1, std::vector<float>(2 * rows.row.size(), 1), 1, &rows);
    EXPECT_EQ(state.everything(), before);
  }
}

TEST(WeightUpdate, RefusesWrongArguments) {
  const Device cpu = Cpu{};
  const Buffer<float> a(cpu, 4), b(cpu, 4), c(cpu, 4), d(cpu, 4), rate(cpu, 1);
  const Buffer<std::int64_t> step(cpu, 1);
  const Buffer<std::int32_t> row(cpu, 4);
  const WeightUpdate<Adam, float> good{.weight = a.view(2, 2),
                                       .gradient = b.view(2, 2),
                                       .state = {c.view(2, 2), d.view(2, 2)},
                                       .learning_rate = rate.view(1),
                                       .step = step.view(1)};
  const auto with = [&](const auto& change) {
    auto op = good;
    change(op);
    return op;
  };
  EXPECT_NO_THROW(good.check());
  EXPECT_THROW(with([&](auto& op) { op.gradient = b.view(1, 2); }).check(), ShapeError);
  EXPECT_THROW(with([&](auto& op) { op.gradient = b.view(2, 1); }).check(), ShapeError);
  EXPECT_THROW(with([&](auto& op) { op.state[1] = {}; }).check(), ShapeError);
  EXPECT_THROW(with([&](auto& op) { op.step = {}; }).check(), ShapeError);
  EXPECT_THROW(with([&](auto& op) { op.learning_rate = {}; }).check(), ShapeError);
  EXPECT_THROW(with([&](auto& op) { op.row = row.view(2); }).check(), ShapeError);  // no count
  EXPECT_THROW(with([&](auto& op) {
                 op.row = row.view(1);
                 op.row_count = row.view(1);
               }).check(),
               ShapeError);
  for (const double bad : {-1.0, std::nan("")}) {
    EXPECT_THROW(with([&](auto& op) { op.weight_decay = bad; }).check(), ConfigError);
    EXPECT_THROW(with([&](auto& op) { op.clip_value = bad; }).check(), ConfigError);
    EXPECT_THROW(with([&](auto& op) { op.learning_rate_factor = bad; }).check(), ConfigError);
    EXPECT_THROW((Momentum{.momentum = bad}.check()), ConfigError);
  }
  EXPECT_THROW((Momentum{.momentum = 0}.check()), ConfigError);
  for (const double beta : {-0.1, 1.0, std::nan("")}) {
    EXPECT_THROW((Adam{.beta1 = beta}.check()), ConfigError);
    EXPECT_THROW((Adam{.beta2 = beta}.check()), ConfigError);
  }
  for (const double epsilon : {0.0, -1.0, 1e-60, std::nan("")}) {
    EXPECT_THROW((Adam{.epsilon = epsilon}.check()), ConfigError);
    EXPECT_THROW((RmsProp<true, false>{.epsilon = epsilon}.check()), ConfigError);
    EXPECT_THROW((Adagrad{.epsilon = epsilon}.check()), ConfigError);
  }
  for (const double alpha : {-0.1, 1.0, std::nan("")}) {
    EXPECT_THROW((RmsProp<false, false>{.alpha = alpha}.check()), ConfigError);
  }
  EXPECT_THROW((RmsProp<false, true>{.momentum = 0}.check()), ConfigError);
  for (const double bad : {-1.0, std::nan("")}) {
    EXPECT_THROW((Adagrad{.rate_decay = bad}.check()), ConfigError);
    EXPECT_THROW((Adagrad{.initial_state = bad}.check()), ConfigError);
  }
}

/// The worst excess of two updates of 2,000 weights: the second has states.
double sweep_excess(const Device& device, const Settings& s, unsigned seed) {
  const Tolerance tolerance = tolerance_of(s);
  const auto start = random_values<float>(2000, seed);
  const State<float> state(device, start, 0, 0, s.initial);
  Settings stored = s;  // as the device sees them
  stored.learning_rate = static_cast<float>(s.learning_rate);
  stored.gradient_scale = static_cast<float>(s.gradient_scale);
  reference::Optimizer want(stored, as_double(start));
  for (unsigned t = 1; t <= 2; ++t) {
    const auto gradient = random_values<float>(2000, 1000 * t + seed);
    state.step(s, t, gradient);
    want.step(as_double(gradient), t);
  }
  double worst = test::worst_excess(state.read(state.weight), want.weight, tolerance);
  for (std::size_t i = 0; i < state_count(s); ++i) {
    worst =
        std::max(worst, test::worst_excess(state.read(state.states[i]), want.state[i], tolerance));
  }
  return worst;
}

TEST(WeightUpdate, SweepStaysWithinItsTolerance) {
  for (const Settings::Kind kind : {Settings::Kind::sgd, kAdam, kRmsProp, kAdagrad}) {
    double worst = 0;
    Tolerance recorded;
    for (const Settings& s : kCases) {
      if (s.kind != kind) continue;
      recorded = tolerance_of(s);
      for (const Device& device : test::devices()) {
        for (unsigned seed = 0; seed < 12; ++seed) {
          worst = std::max(worst, sweep_excess(device, s, seed));
        }
      }
    }
    test::expect_recorded(worst, recorded);
  }
}

}  // namespace
}  // namespace carousel
