#include "kernels/sampled_loss/sampled_loss.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "tests/reference/sampled_loss.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;
using test::close;
using test::of;
using test::on_all_devices_and_types;
using test::stored;
using Ids = std::vector<std::int32_t>;
using Numbers = std::vector<double>;
using Problem = reference::SampledLoss;
using Solution = reference::SampledLossResult;

Ids candidates(const Device& device, const Ids& target, std::size_t words, std::int64_t step,
               const Numbers& weight, float* counted = nullptr) {
  const std::size_t rows = target.size();
  const Buffer<std::int32_t> targets(device, target), all(device, rows + words);
  const Buffer<std::int64_t> columns(device, alias_columns(weight)),
      at(device, std::vector<std::int64_t>{step});
  const Buffer<float> count(device, 1);
  run(device, SampledCandidates<float>{.target = targets.view(rows),
                                       .table = {.columns = columns.view(weight.size())},
                                       .source = {.seed = 7, .stream = 2, .step = at.view(1)},
                                       .candidate = all.view(rows + words),
                                       .counted = count.view(1)});
  if (counted != nullptr) *counted = count.read()[0];
  return all.read();
}

TEST(SampledCandidates, AreTheTargetsAndWordsThatDevicesDrawAlike) {
  Numbers weight;
  for (int v = 0; v < 300; ++v) weight.push_back(std::log((v + 2.0) / (v + 1.0)));
  const Ids target{5, -1, 299, 1000, -3};
  for (const std::size_t words : {0U, 1U, 2U, 31U, 2048U, 5001U}) {
    float counted = 0;
    const Ids want = candidates(Cpu{}, target, words, 4, weight, &counted);
    EXPECT_EQ(Ids(want.begin(), want.begin() + 5), (Ids{5, kNoToken, 299, 1000, -3}));
    EXPECT_EQ(counted, 4);
    EXPECT_TRUE(std::all_of(want.begin() + 5, want.end(),
                            [](std::int32_t w) { return w >= 0 && w < 300; }));
    for (const Device& device : test::devices()) {
      EXPECT_EQ(candidates(device, target, words, 4, weight, &counted), want) << words;
      EXPECT_EQ(counted, 4);
      if (words > 20) {
        EXPECT_NE(candidates(device, target, words, 5, weight), want);
      }
      // Fewer words are the first of more.
      const Ids more = candidates(device, target, words + 3, 4, weight);
      EXPECT_EQ(Ids(more.begin(), more.end() - 3), want);
    }
  }
}

// χ² of 64 steps of 4096 draws over 100 words: 99 ± 14.1 of a right sampler, above 180 once in 10⁶.
TEST(SampledCandidates, FollowTheirDistribution) {
  for (const double power : {0.0, 0.75, 1.0}) {
    Numbers weight, counts(100);
    double sum = 0;
    for (int v = 0; v < 100; ++v) weight.push_back(std::pow(v + 1.0, -power)), sum += weight.back();
    constexpr int kSteps = 64, kWords = 4096;
    for (int step = 0; step < kSteps; ++step) {
      for (const std::int32_t word : candidates(Cpu{}, {}, kWords, step, weight)) {
        counts.at(static_cast<std::size_t>(word)) += 1;
      }
    }
    double chi_squared = 0;
    for (std::size_t v = 0; v < 100; ++v) {
      const double expected = kSteps * kWords * weight[v] / sum;
      chi_squared += (counts[v] - expected) * (counts[v] - expected) / expected;
    }
    EXPECT_LT(chi_squared, 180) << power;
    EXPECT_GT(chi_squared, 45) << power;
  }
}

TEST(SampledCandidates, RefuseWhatTheirContractRefuses) {
  const Buffer<std::int32_t> words(Cpu{}, 9);
  const Buffer<std::int64_t> numbers(Cpu{}, 4);
  const Buffer<float> one(Cpu{}, 1);
  const SampledCandidates<float> good{.target = {words.view(9).data, {4}},
                                      .table = {.columns = numbers.view(4)},
                                      .source = {.step = {numbers.view(4).data, {1}}},
                                      .candidate = words.view(9),
                                      .counted = one.view(1)};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    SampledCandidates<float> bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.target.extent = {10}; });
  refused([](auto& op) { op.counted.extent = {2}; });
  refused([](auto& op) { op.table.columns.extent = {0}; });
  refused([](auto& op) { op.source.step = {}; });
}

constexpr double kOld = 0.25;  // what d_hidden holds before it is added to

template <class T>
Solution solve(const Device& device, const Problem& p, bool add = false) {
  using A = Accumulator<T>;
  const std::size_t n = p.rows, all = p.rows + p.words, h = p.width;
  const Buffer<T> hidden(device, stored<T>(p.hidden)), row(device, stored<T>(p.row)),
      fresh(device, n * h), old(device, std::vector<T>(n * h, T(kOld))), d_row(device, all * h);
  const Buffer<A> bias(device, stored<A>(p.bias)), expected(device, stored<A>(p.log_expected)),
      denominator(device, stored<A>({p.denominator})), loss(device, n), mean(device, 1),
      d_bias(device, all);
  const Buffer<std::int32_t> candidate(device, p.candidate);
  SampledLoss<T> op{.kind = p.noise ? SampledKind::noise : SampledKind::softmax,
                    .hidden = hidden.view(n, h),
                    .row = row.view(all, h),
                    .bias = bias.view(all),
                    .candidate = candidate.view(all),
                    .log_expected = expected.view(p.log_expected.size()),
                    .denominator = denominator.view(1),
                    .loss = loss.view(n),
                    .mean_loss = mean.view(1),
                    .d_hidden = {(add ? old : fresh).view(n, h), add},
                    .d_row = d_row.view(all, h),
                    .d_bias = d_bias.view(all)};
  const auto scratch = test::give_scratch(device, op);
  run(device, op);
  return {.loss = as_double(loss.read()),
          .mean = as_double(mean.read())[0],
          .d_hidden = as_double((add ? old : fresh).read()),
          .d_row = as_double(d_row.read()),
          .d_bias = as_double(d_bias.read())};
}

struct Size {
  std::size_t rows, words, width, vocab;
};

/// Numbers as T stores them; few words, so that hits and repeats occur, and some rows ignored.
template <class T>
Problem random_problem(const Size& size, bool noise) {
  Problem p{.noise = noise,
            .rows = size.rows,
            .words = size.words,
            .width = size.width,
            .hidden = {},
            .row = {},
            .bias = {},
            .candidate = {},
            .log_expected = {}};
  std::mt19937 random(static_cast<unsigned>(size.rows * 31 + size.words));
  const auto draw = [&](std::size_t count, double bound, auto type) {
    std::uniform_real_distribution<double> uniform(-bound, bound);
    Numbers result;
    for (std::size_t i = 0; i < count; ++i) {
      result.push_back(static_cast<double>(static_cast<decltype(type)>(uniform(random))));
    }
    return result;
  };
  const std::size_t all = size.rows + size.words;
  p.hidden = draw(size.rows * size.width, 1, T{});
  p.row = draw(all * size.width, 8 / std::sqrt(static_cast<double>(size.width)), T{});
  p.bias = draw(all, 1, Accumulator<T>{});
  for (const double x : draw(size.vocab, 2, Accumulator<T>{})) p.log_expected.push_back(x - 1);
  for (double& x : p.log_expected) x = static_cast<double>(static_cast<float>(x));
  for (std::size_t i = 0; i < all; ++i) {
    const auto word = static_cast<std::int32_t>(random() % size.vocab);
    p.candidate.push_back(i < size.rows && random() % 6 == 0 ? kNoToken : word);
  }
  p.denominator = std::max(1.0, static_cast<double>(size.rows));
  return p;
}

Numbers scaled(Numbers values, double factor) {
  for (double& v : values) v *= factor;
  return values;
}

Problem one_row(bool noise, const Ids& candidate) {
  const std::size_t words = candidate.size() - 1;
  return {.noise = noise,
          .rows = 1,
          .words = words,
          .width = 1,
          .hidden = {1},
          .row = Numbers(words + 1, 0),
          .bias = Numbers(words + 1, 0),
          .candidate = candidate,
          .log_expected = Numbers(8, 0)};
}

TEST(SampledLoss, EqualLogitsByHand) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const Tolerance& near = of<T>(kSampledLossTolerance);
    // Three other words and a hit: one of four.
    const Solution soft = solve<T>(device, one_row(false, {2, 1, 2, 5, 1}));
    EXPECT_TRUE(close(soft.loss, Numbers{std::log(4.0)}, near));
    EXPECT_EQ(soft.d_bias, (Numbers{-0.75, 0.25, 0, 0.25, 0.25}));
    EXPECT_EQ(soft.d_row, soft.d_bias);
    // Five decisions by a coin.
    const Solution noise = solve<T>(device, one_row(true, {2, 1, 2, 5, 1}));
    EXPECT_TRUE(close(noise.loss, Numbers{5 * std::log(2.0)}, near));
    EXPECT_EQ(noise.d_bias, (Numbers{-0.5, 0.5, 0.5, 0.5, 0.5}));
  });
}

TEST(SampledLoss, NothingButHitsLeavesTheTargetAlone) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const double bias : {0.0, -200.0, 200.0}) {
      Problem p = one_row(false, {2, 2, 2});
      p.bias = {bias, bias, bias};
      const Solution s = solve<T>(device, p);
      EXPECT_EQ(s.loss, Numbers{0});
      EXPECT_EQ(s.d_bias, (Numbers{0, 0, 0}));
    }
  });
}

TEST(SampledLoss, BackwardIsTheDerivativeOfForward) {
  constexpr double kStep = 1e-5;
  for (const bool noise : {false, true}) {
    Problem p = random_problem<double>({5, 7, 3, 9}, noise);
    const Solution s = solve<double>(Cpu{}, p);
    const auto expect_slopes = [&](const Numbers& got, Numbers& values) {
      Numbers slope;
      for (double& x : values) {
        const double middle = x;
        x = middle + kStep;
        const double above = solve<double>(Cpu{}, p).mean;
        x = middle - kStep;
        slope.push_back((above - solve<double>(Cpu{}, p).mean) / (2 * kStep));
        x = middle;
      }
      EXPECT_TRUE(close(got, slope, {.absolute = 1e-9, .relative = 1e-8}));
    };
    expect_slopes(s.d_hidden, p.hidden);
    expect_slopes(s.d_row, p.row);
    expect_slopes(s.d_bias, p.bias);
  }
}

TEST(SampledLoss, SweepIsWithinTheContract) {
  double worst[2] = {}, worst_gradient[2] = {};
  on_all_devices_and_types([&]<class T>(const Device& device, std::type_identity<T>) {
    for (const Size& size :
         {Size{0, 3, 4, 5}, Size{1, 1, 1, 2}, Size{3, 31, 33, 20}, Size{20, 65, 16, 30},
          Size{9, 1025, 40, 2000}, Size{70, 1024, 130, 500}}) {
      for (const bool noise : {false, true}) {
        SCOPED_TRACE(size.words);
        const Problem p = random_problem<T>(size, noise);
        const Solution got = solve<T>(device, p), want = reference::sampled_loss(p);
        const Tolerance& near = of<T>(kSampledLossTolerance);
        const Tolerance& gradient = of<T>(kSampledLossGradientTolerance);
        double& most = worst[sizeof(T) == sizeof(float) ? 0 : 1];
        double& most_gradient = worst_gradient[sizeof(T) == sizeof(float) ? 0 : 1];
        EXPECT_TRUE(close(got.loss, want.loss, near));
        EXPECT_TRUE(close(Numbers{got.mean}, Numbers{want.mean}, near));
        most = std::max(most, test::worst_excess(got.loss, want.loss, near));
        const auto expect_near = [&](const Numbers& a, const Numbers& b, const char* name) {
          const Numbers x = scaled(a, p.denominator), y = scaled(b, p.denominator);
          EXPECT_TRUE(close(x, y, gradient)) << name;
          most_gradient = std::max(most_gradient, test::worst_excess(x, y, gradient));
        };
        expect_near(got.d_hidden, want.d_hidden, "d_hidden");
        expect_near(got.d_row, want.d_row, "d_row");
        expect_near(got.d_bias, want.d_bias, "d_bias");
      }
    }
  });
  test::expect_recorded(worst[0], kSampledLossTolerance.f32);
  test::expect_recorded(worst[1], kSampledLossTolerance.bf16);
  test::expect_recorded(worst_gradient[0], kSampledLossGradientTolerance.f32);
  test::expect_recorded(worst_gradient[1], kSampledLossGradientTolerance.bf16);
}

TEST(SampledLoss, AddsToHiddensGradientAndLeavesIgnoredRowsAlone) {
  for (const Device& device : test::devices()) {
    const Problem p = random_problem<float>({20, 65, 16, 30}, false);
    const Solution fresh = solve<float>(device, p), onto = solve<float>(device, p, true);
    for (std::size_t i = 0; i < fresh.d_hidden.size(); ++i) {
      EXPECT_NEAR(onto.d_hidden[i], fresh.d_hidden[i] + kOld, 1e-6);
      if (p.candidate[i / p.width] == kNoToken) {
        EXPECT_EQ(onto.d_hidden[i], kOld);
      }
    }
  }
}

TEST(SampledLoss, ATargetOutsideTheVocabularyIsNaN) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const bool noise : {false, true}) {
      for (const std::int32_t bad : {-1, 8, INT32_MAX}) {
        const Solution s = solve<T>(device, one_row(noise, {bad, 1, 2}));
        EXPECT_TRUE(std::isnan(s.loss[0]) && std::isnan(s.mean) && std::isnan(s.d_hidden[0]));
        EXPECT_TRUE(std::isnan(s.d_row[0]) && std::isnan(s.d_row[2]) && std::isnan(s.d_bias[1]));
      }
      const Solution s = solve<T>(device, one_row(noise, {kNoToken, 1, 2}));
      EXPECT_EQ(s.loss[0], 0);
      EXPECT_EQ(s.d_row, (Numbers{0, 0, 0}));
    }
  });
}

// With words drawn from q, Σ_s exp z of many draws is near the sum of exp logit over all words but
// the target.
TEST(SampledLoss, TheNormaliserIsEstimatedWithoutBias) {
  constexpr std::size_t kVocab = 20, kWords = 8192;
  Numbers weight, logit;
  double sum = 0, exact = 0;
  for (std::size_t v = 0; v < kVocab; ++v) {
    weight.push_back(1.0 / static_cast<double>(v + 1));
    logit.push_back(std::sin(static_cast<double>(v)));
    sum += weight[v];
    exact += v == 0 ? 0 : std::exp(logit[v]);
  }
  Problem p = one_row(false, candidates(Cpu{}, {0}, kWords, 1, weight));
  p.log_expected.clear();
  for (const double w : weight) p.log_expected.push_back(std::log(kWords * w / sum));
  p.bias.clear();
  for (const std::int32_t word : p.candidate) {
    p.bias.push_back(logit[static_cast<std::size_t>(word)]);
  }
  const double estimate = std::exp(solve<double>(Cpu{}, p).loss[0]) * std::exp(logit[0]);
  EXPECT_NEAR(estimate, exact + std::exp(logit[0]), 0.03 * exact);  // three standard errors
}

TEST(SampledLoss, RefusesExtentsThatDisagree) {
  const Buffer<float> x(Cpu{}, 64);
  const Buffer<std::int32_t> words(Cpu{}, 5);
  float* const data = x.view(64).data;
  SampledLoss<float> good{.hidden = {data, {2, 3}},
                          .row = {data, {5, 3}},
                          .bias = {data, {5}},
                          .candidate = words.view(5),
                          .log_expected = {data, {9}},
                          .denominator = {data, {1}},
                          .loss = {data, {2}},
                          .mean_loss = {data, {1}},
                          .d_hidden = {{data, {2, 3}}},
                          .d_row = {data, {5, 3}},
                          .d_bias = {data, {5}}};
  EXPECT_NO_THROW(good.check());
  EXPECT_THROW(run(Cpu{}, good), ShapeError);  // no scratch
  const auto refused = [&](const auto& change) {
    SampledLoss<float> bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.candidate.extent = {2}; });
  refused([](auto& op) { op.row.extent = {4, 3}; });
  refused([](auto& op) { op.row.extent = {5, 2}; });
  refused([](auto& op) { op.bias.extent = {4}; });
  refused([](auto& op) { op.log_expected.extent = {0}; });
  refused([](auto& op) { op.denominator.extent = {2}; });
  refused([](auto& op) { op.loss.extent = {3}; });
  refused([](auto& op) { op.mean_loss.extent = {0}; });
  refused([](auto& op) { op.d_hidden.view.extent = {3, 3}; });
  refused([](auto& op) { op.d_hidden.view.extent = {2, 2}; });
  refused([](auto& op) { op.d_row.extent = {5, 4}; });
  refused([](auto& op) { op.d_row.extent = {4, 3}; });
  refused([](auto& op) { op.d_bias.extent = {4}; });
}

}  // namespace
}  // namespace carousel
