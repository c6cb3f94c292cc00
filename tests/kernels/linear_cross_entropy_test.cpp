#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/kernels/linear_cross_entropy_problem.h"

namespace carousel {
namespace {

using test::close;
using test::on_all_devices_and_types;
using test::linear_cross_entropy::all_nan;
using test::linear_cross_entropy::Excess;
using test::linear_cross_entropy::excess;
using test::linear_cross_entropy::expect_near;
using test::linear_cross_entropy::How;
using test::linear_cross_entropy::kOld;
using test::linear_cross_entropy::kWays;
using test::linear_cross_entropy::Problem;
using test::linear_cross_entropy::random_problem;
using test::linear_cross_entropy::Size;
using test::linear_cross_entropy::Solution;
using test::linear_cross_entropy::solve;
using test::linear_cross_entropy::weighted;

// Worked by hand: the logits of both rows are (ln 3, 0), p = (¾, ¼); the third row is ignored.
TEST(LinearCrossEntropy, TwoRowsAndAnIgnoredOneByHand) {
  const double log3 = static_cast<double>(std::log(3.0F));
  const Problem p{3, 1, 2, {1, 1, 5}, {log3, 0}, {}, {0, 1, kIgnoreTarget}, 0};
  for (const Device& device : test::devices()) {
    const Solution want{{std::log(4.0 / 3), std::log(4.0), 0},
                        std::log(16.0 / 3) / 2,
                        2,
                        {-log3 / 8, 3 * log3 / 8, 0},
                        {0.25, -0.25},
                        {0.25, -0.25},
                        2};
    expect_near<float>(solve<float>(device, p), want);
  }
}

TEST(LinearCrossEntropy, GradientsAreTheDerivativesOfTheMeanLoss) {
  constexpr double kStep = 1e-5;
  Problem p = weighted(random_problem<double>({7, 5, 11}, /*seed=*/3, /*smoothing=*/0.125), 4);
  for (const How& how : kWays) {
    Solution s = solve<double>(Cpu{}, p, how);
    for (auto* d : {&s.d_hidden, &s.d_weight, &s.d_bias}) {
      for (double& x : *d) x /= p.term_weight;  // which the mean does not have
    }
    const auto slopes = [&](std::vector<double>& input) {
      std::vector<double> result;
      for (double& x : input) {
        const double middle = x;
        x = middle + kStep;
        const double above = solve<double>(Cpu{}, p, how).mean;
        x = middle - kStep;
        result.push_back((above - solve<double>(Cpu{}, p, how).mean) / (2 * kStep));
        x = middle;
      }
      return result;
    };
    constexpr Tolerance kSlope{.absolute = 1e-8, .relative = 1e-8};
    EXPECT_TRUE(close(s.d_hidden, slopes(p.hidden), kSlope));
    EXPECT_TRUE(close(s.d_weight, slopes(p.weight), kSlope));
    EXPECT_TRUE(close(s.d_bias, slopes(p.bias), kSlope));
  }
}

TEST(LinearCrossEntropy, EveryDeviceAgreesWithTheOracle) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const Size size : {Size{0, 3, 5}, Size{1, 1, 1}, Size{5, 0, 4}, Size{3, 7, 33},
                            Size{33, 8, 31}, Size{70, 16, 65}, Size{2, 5, 1030}}) {
      SCOPED_TRACE(size.vocab);
      const Problem p = random_problem<T>(size, /*seed=*/17, /*smoothing=*/0.1);
      expect_near<T>(solve<T>(device, p), reference::linear_cross_entropy(p));
      const Problem w = weighted(p, /*seed=*/23);
      expect_near<T>(solve<T>(device, w), reference::linear_cross_entropy(w));
    }
  });
}

TEST(LinearCrossEntropy, ALongChunkOfASmallVocabularySumsItsBiasGradientInSlices) {
  for (const Device& device : test::devices()) {
    const Problem p = random_problem<float>({601, 3, 70}, /*seed=*/19);
    expect_near<float>(solve<float>(device, p), reference::linear_cross_entropy(p));
  }
}

TEST(LinearCrossEntropy, TheTileChangesNothingButRounding) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const Problem p = random_problem<T>({24, 8, 40}, /*seed=*/5, /*smoothing=*/0.1);
    const Solution want = reference::linear_cross_entropy(p);
    constexpr LogitTile kTiles[] = {{1, 0}, {7, 0},  {23, 40}, {25, 41}, {0, 1},
                                    {0, 7}, {0, 39}, {3, 9},   {7, 32},  {24, 20}};
    for (const auto& [rows, words] : kTiles) {
      SCOPED_TRACE(testing::Message() << rows << " rows, " << words << " words");
      expect_near<T>(solve<T>(device, p, {.chunk_rows = rows, .chunk_words = words}), want);
    }
  });
}

TEST(LinearCrossEntropy, AddsToTheOneGradientWhoseFlagSaysSo) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const std::size_t rows : {0, 9}) {
      const Problem p = random_problem<T>({rows, 4, 12}, /*seed=*/7);
      const std::vector<std::pair<const char*, std::vector<double> Solution::*>> gradients{
          {"d_hidden", &Solution::d_hidden},
          {"d_weight", &Solution::d_weight},
          {"d_bias", &Solution::d_bias}};
      for (const auto& [name, gradient] : gradients) {
        SCOPED_TRACE(name);
        Solution want = reference::linear_cross_entropy(p);
        for (double& x : want.*gradient) x += kOld;
        for (How how : kWays) {
          how.accumulate = name;
          expect_near<T>(solve<T>(device, p, how), want);
        }
      }
    }
  });
}

TEST(LinearCrossEntropy, WithoutGradientsTheLossIsTheSameAndTheyAreLeft) {
  for (const Device& device : test::devices()) {
    const Problem p = random_problem<float>({10, 6, 70}, /*seed=*/11, /*smoothing=*/0.1);
    const Solution with = solve<float>(device, p);
    for (How how : kWays) {
      how.gradients = false;
      const Solution without = solve<float>(device, p, how);
      EXPECT_TRUE(close(without.loss, with.loss, kLinearCrossEntropyTolerance.f32));
      EXPECT_TRUE(all_nan(without.d_weight));
    }
  }
}

template <class T>
void sweep() {
  Excess worst;
  for (unsigned seed = 0; seed < 16; ++seed) {
    const Size size{4 + seed * 3, 1 + seed * seed % 90, 1 + seed * seed * 7 % 300};
    Problem p = random_problem<T>(size, seed, 0.1 * (seed % 3));
    if (seed % 2 == 1) p = weighted(std::move(p), seed);
    const Solution want = reference::linear_cross_entropy(p);
    for (const Device& device : test::devices()) {
      const How how{.chunk_rows = 1 + seed % 31, .chunk_words = seed % 3 == 0 ? 1 + seed * 5 : 0};
      const Excess e = excess<T>(solve<T>(device, p, how), want);
      worst = {std::max(worst.loss, e.loss), std::max(worst.gradient, e.gradient)};
    }
  }
  test::expect_recorded(worst.loss, test::of<T>(kLinearCrossEntropyTolerance));
  test::expect_recorded(worst.gradient, test::of<T>(kLinearCrossEntropyGradientTolerance));
}
TEST(LinearCrossEntropy, SweepInFloat) { sweep<float>(); }
TEST(LinearCrossEntropy, SweepInBf16) { sweep<bf16>(); }

}  // namespace
}  // namespace carousel
