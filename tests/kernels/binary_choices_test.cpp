#include "kernels/binary_choices/binary_choices.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/binary_choices.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using Ids = std::vector<std::int32_t>;

struct Problem : reference::BinaryChoices {
  std::vector<double> before{};  ///< what d_hidden is added to; empty: it is overwritten
  double denominator = 0;        ///< 0: absent
  bool of_sum = false;
  float term_weight = 1;
  std::size_t rows() const { return choice.size() / choices; }
};

template <class T>
struct Solution {
  std::vector<Accumulator<T>> loss, mean, d_logit;
  std::vector<T> d_hidden;
  std::int32_t count = 0;
};

template <class T>
Solution<T> solve(const Device& device, const Problem& p) {
  using A = Accumulator<T>;
  const std::size_t N = p.rows(), E = p.width, C = p.choices;
  const Buffer<T> hidden(device, test::stored<T>(p.hidden)),
      weight(device, test::stored<T>(p.weight));
  const Buffer<std::int32_t> choice(device, p.choice), answer(device, p.answer), count(device, 1);
  const Buffer<A> denominator(device, std::vector<A>{static_cast<A>(p.denominator)}),
      loss(device, N), mean(device, 1), d_logit(device, N * C);
  const auto d_hidden =
      p.before.empty() ? Buffer<T>(device, N * E) : Buffer<T>(device, test::stored<T>(p.before));
  ::carousel::BinaryChoices<T> op{.hidden = hidden.view(N, E),
                                  .weight = weight.view(p.weight.size() / E, E),
                                  .choice = choice.view(N, C),
                                  .answer = answer.view(N, C),
                                  .gradients_of_sum = p.of_sum,
                                  .term_weight = p.term_weight,
                                  .loss = loss.view(N),
                                  .mean_loss = mean.view(1),
                                  .count = count.view(1),
                                  .d_logit = d_logit.view(N, C),
                                  .d_hidden = {d_hidden.view(N, E), !p.before.empty()}};
  if (p.denominator != 0) op.denominator = denominator.view(1);
  run(device, op);
  return {loss.read(), mean.read(), d_logit.read(), d_hidden.read(), count.read()[0]};
}

std::vector<double> uniform(std::size_t count, double bound, std::mt19937_64& random) {
  std::vector<double> values(count);
  for (double& v : values) {
    const double drawn = std::ldexp(static_cast<double>(random() >> 11), -52) - 1;
    v = static_cast<double>(static_cast<float>(bound * drawn));
  }
  return values;
}

/// Every fifth row does not count, and every seventh choice but the first is none.
Problem random_problem(std::size_t rows, std::size_t width, std::size_t choices, unsigned seed) {
  constexpr std::size_t kVocab = 23;
  std::mt19937_64 random(seed);
  Problem p;
  p.width = width, p.choices = choices;
  p.hidden = uniform(rows * width, 1, random);
  p.weight = uniform(kVocab * width, 4 / std::sqrt(static_cast<double>(width)), random);
  for (std::size_t i = 0; i < rows * choices; ++i) {
    const bool none = i % choices == 0 ? i / choices % 5 == 4 : random() % 7 == 0;
    p.choice.push_back(none ? kNoToken : static_cast<std::int32_t>(random() % kVocab));
    p.answer.push_back(random() % 2 == 0 ? 1 : 0);
  }
  return p;
}

// Leg 1: worked by hand. Logits are 0, whose σ is ½, and log 3, whose σ is ¾.
TEST(BinaryChoices, OneRowByHand) {
  const double log3 = std::log(3.0);
  Problem p;
  p.width = 2, p.choices = 3;
  p.hidden = {1, 1, 5, 5};
  p.weight = {1, -1, log3, 0, 7, 7};
  p.choice = {0, 1, 1, kNoToken, 1, 2};
  p.answer = {1, 1, 0, 1, 1, 1};
  p.of_sum = true;
  for (const Device& device : test::devices()) {
    const auto s = solve<float>(device, p);
    const double loss = std::log(2.0) + std::log(4.0 / 3) + std::log(4.0);
    EXPECT_NEAR(s.loss[0], loss, 1e-6);
    EXPECT_EQ(s.loss[1], 0);
    EXPECT_NEAR(s.mean[0], loss, 1e-6);
    EXPECT_EQ(s.count, 1);
    const std::vector<double> d_logit{-0.5, -0.25, 0.75, 0, 0, 0};
    EXPECT_TRUE(test::close(s.d_logit, d_logit, Tolerance{.absolute = 1e-6}));
    const std::vector<double> d_hidden{-0.5 + 0.5 * log3, 0.5, 0, 0};
    EXPECT_TRUE(test::close(s.d_hidden, d_hidden, Tolerance{.absolute = 1e-6}));
  }
}

// Leg 2: central differences of the mean, by hidden, and by weight through d_logit.
TEST(BinaryChoices, BackwardAgreesWithCentralDifferencesInDouble) {
  Problem p = random_problem(9, 5, 4, 3);
  p.term_weight = 0.5F;
  const auto s = solve<double>(Cpu{}, p);
  const auto moved = [&](std::vector<double> Problem::*field, std::size_t i) {
    constexpr double kStep = 1e-5;
    Problem up = p, down = p;
    (up.*field)[i] += kStep;
    (down.*field)[i] -= kStep;
    return (solve<double>(Cpu{}, up).mean[0] - solve<double>(Cpu{}, down).mean[0]) / (4 * kStep);
  };
  for (std::size_t i = 0; i < p.hidden.size(); ++i) {
    EXPECT_NEAR(s.d_hidden[i], moved(&Problem::hidden, i), 1e-9);
  }
  std::vector<double> d_weight(p.weight.size(), 0.0);
  for (std::size_t i = 0; i < p.choice.size(); ++i) {
    if (p.choice[i] == kNoToken) continue;
    for (std::size_t e = 0; e < p.width; ++e) {
      d_weight[static_cast<std::size_t>(p.choice[i]) * p.width + e] +=
          s.d_logit[i] * p.hidden[i / p.choices * p.width + e];
    }
  }
  for (std::size_t i = 0; i < p.weight.size(); ++i) {
    EXPECT_NEAR(d_weight[i], moved(&Problem::weight, i), 1e-9);
  }
}

struct Size {
  std::size_t rows, width, choices;
};
// None, one, around a warp's pieces, around 1024 columns, the widest, and a step of training.
const std::vector<Size> kSizes{{0, 3, 2},    {1, 1, 1},    {7, 4, 6},    {33, 100, 6},
                               {5, 128, 2},  {5, 129, 17}, {9, 300, 6},  {3, 513, 3},
                               {2, 1025, 4}, {1, 8192, 2}, {300, 31, 6}, {1000, 64, 11}};

/// The largest excesses of values and of gradients over the sweep.
template <class T>
std::pair<double, double> sweep(const Device& device) {
  const Tolerance &values = test::of<T>(kBinaryChoicesTolerance),
                  &gradients = test::of<T>(kBinaryChoicesGradientTolerance);
  std::pair<double, double> worst{0, 0};
  unsigned seed = 50;
  for (const auto& [rows, width, choices] : kSizes) {
    for (const bool of_sum : {true, false}) {
      Problem p = random_problem(rows, width, choices, ++seed);
      p.hidden = test::as_double(test::stored<T>(p.hidden));
      p.weight = test::as_double(test::stored<T>(p.weight));
      p.of_sum = of_sum;
      if (seed % 3 == 0) p.denominator = static_cast<double>(rows) + 1;
      std::mt19937_64 random(seed);
      if (seed % 4 == 0)
        p.before = test::as_double(test::stored<T>(uniform(rows * width, 1, random)));
      const auto got = solve<T>(device, p);
      auto want = reference::binary_choices(p);
      const double divisor = p.denominator != 0 ? p.denominator : want.count;
      const double scale = of_sum ? 1 : divisor == 0 ? 0 : 1 / divisor;
      for (double& d : want.d_logit) d *= scale;
      for (double& d : want.d_hidden) d *= scale;
      for (std::size_t i = 0; i < p.before.size(); ++i) want.d_hidden[i] += p.before[i];
      EXPECT_EQ(got.count, want.count);
      EXPECT_TRUE(test::close(got.loss, want.loss, values));
      const std::vector<double> mean{divisor == 0 ? 0 : want.sum / divisor};
      EXPECT_TRUE(test::close(got.mean, mean, values));
      EXPECT_TRUE(test::close(got.d_logit, want.d_logit, gradients));
      EXPECT_TRUE(test::close(got.d_hidden, want.d_hidden, gradients));
      worst.first = std::max({worst.first, test::worst_excess(got.loss, want.loss, values),
                              test::worst_excess(got.mean, mean, values)});
      worst.second =
          std::max({worst.second, test::worst_excess(got.d_logit, want.d_logit, gradients),
                    test::worst_excess(got.d_hidden, want.d_hidden, gradients)});
    }
  }
  return worst;
}

// Leg 3: every device, type and size against the oracle.
template <class T>
void sweep_all() {
  double values = 0, gradients = 0;
  for (const Device& device : test::devices()) {
    const auto [of_values, of_gradients] = sweep<T>(device);
    values = std::max(values, of_values);
    gradients = std::max(gradients, of_gradients);
  }
  test::expect_recorded(values, test::of<T>(kBinaryChoicesTolerance));
  test::expect_recorded(gradients, test::of<T>(kBinaryChoicesGradientTolerance));
}

TEST(BinaryChoices, SweepStaysWithinItsTolerance) { sweep_all<float>(); }
TEST(BinaryChoices, SweepOfBf16StaysWithinItsTolerance) { sweep_all<bf16>(); }

// Leg 4: the contract on bad input.
TEST(BinaryChoices, AnImpossibleChoiceIsNaNWhereItCounts) {
  for (const Device& device : test::devices()) {
    for (const std::int32_t bad : {-1, 23, INT32_MAX, kNoToken + 1}) {
      Problem p = random_problem(4, 6, 3, 9);
      p.choice = {1, bad, 2, 3, 4, 5, 6, 7, 8, kNoToken, bad, bad};
      const auto s = solve<float>(device, p);
      EXPECT_TRUE(std::isnan(s.loss[0]) && std::isnan(s.mean[0]) && std::isnan(s.d_logit[1]));
      for (std::size_t e = 0; e < 6; ++e) EXPECT_TRUE(std::isnan(s.d_hidden[e]));
      for (std::size_t i = 6; i < 24; ++i) EXPECT_FALSE(std::isnan(s.d_hidden[i]));
      EXPECT_FALSE(std::isnan(s.loss[1]));
      EXPECT_EQ(s.loss[3], 0);
      EXPECT_EQ(s.count, 3);
    }
  }
}

TEST(BinaryChoices, HugeLogitsGiveNoNaN) {
  for (const Device& device : test::devices()) {
    Problem p;
    p.width = 1, p.choices = 4, p.hidden = {1e4}, p.weight = {1, -1};
    p.choice = {0, 1, 0, 1}, p.answer = {1, 0, 0, 1}, p.of_sum = true;
    const auto s = solve<float>(device, p);
    EXPECT_EQ(s.loss[0], 2e4F);
    EXPECT_EQ(s.d_logit, (std::vector<float>{0, 0, 1, -1}));
  }
}

TEST(BinaryChoices, RefusesWhatItsContractRefuses) {
  std::vector<float> numbers(100);
  Ids ids(100);
  float* const f = numbers.data();
  std::int32_t* const i = ids.data();
  const ::carousel::BinaryChoices<float> good{.hidden = {f, {3, 4}},
                                              .weight = {f, {5, 4}},
                                              .choice = {i, {3, 2}},
                                              .answer = {i, {3, 2}},
                                              .denominator = {f, {1}},
                                              .loss = {f, {3}},
                                              .mean_loss = {f, {1}},
                                              .count = {i, {1}},
                                              .d_logit = {f, {3, 2}},
                                              .d_hidden = {{f, {3, 4}}, false}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    auto bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.weight.extent[1] = 3; });
  refused([](auto& op) { op.choice.extent[0] = 2; });
  refused([](auto& op) { op.choice.extent[1] = op.answer.extent[1] = 0; });
  refused([](auto& op) { op.answer.extent[1] = 3; });
  refused([](auto& op) { op.denominator.extent = {2}; });
  refused([](auto& op) { op.loss.extent = {2}; });
  refused([](auto& op) { op.mean_loss.extent = {2}; });
  refused([](auto& op) { op.count.extent = {2}; });
  refused([](auto& op) { op.d_logit.extent[1] = 3; });
  refused([](auto& op) { op.d_hidden.view.extent[1] = 3; });
  refused([](auto& op) { op.hidden.extent[1] = op.weight.extent[1] = 8193; });
  auto infinite = good;
  infinite.term_weight = INFINITY;
  EXPECT_THROW(infinite.check(), ConfigError);
}

// Leg 5: invariants.
TEST(BinaryChoices, AnyNumberOfThreadsGivesTheSameBits) {
  const Problem p = random_problem(3000, 20, 6, 8);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto want = solve<float>(Cpu{}, p);
  omp_set_num_threads(3);
  const auto got = solve<float>(Cpu{}, p);
  omp_set_num_threads(threads);
  EXPECT_EQ(got.loss, want.loss);
  EXPECT_EQ(got.mean, want.mean);
  EXPECT_EQ(got.d_hidden, want.d_hidden);
}

// σ(x) + σ(−x) = 1: the two answers to one question have gradients that differ by 1.
TEST(BinaryChoices, TheTwoAnswersOfAQuestionAddUp) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem(50, 40, 3, 4);
    p.of_sum = true;
    const auto some = solve<float>(device, p);
    for (std::int32_t& answer : p.answer) answer = 1 - answer;
    const auto others = solve<float>(device, p);
    for (std::size_t i = 0; i < p.choice.size(); ++i) {
      const bool counts = p.choice[i] != kNoToken && p.choice[i / 3 * 3] != kNoToken;
      EXPECT_NEAR(std::abs(some.d_logit[i]) + std::abs(others.d_logit[i]), counts ? 1 : 0, 1e-6);
    }
  }
}

}  // namespace
}  // namespace carousel
