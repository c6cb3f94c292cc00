#include "kernels/sample/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/sample/selection.h"
#include "tests/reference/sample.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using reference::SamplingRules;
using test::as_double;
using test::Buffer;
using test::stored;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Options {
  SamplingRules rules{};
  bool greedy = false;
  std::int32_t suppressed = -1;
  std::uint64_t seed = 5;
  std::int64_t step = 1;
};

/// The tokens drawn from `rows` rows of logits, each of which has equally many.
template <class T>
std::vector<std::int32_t> draw(const Device& device, const std::vector<T>& logits, std::size_t rows,
                               const Options& o = {}) {
  const Buffer<T> x(device, logits);
  const Buffer<std::int32_t> token(device, rows);
  const Buffer<std::int64_t> step(device, std::vector{o.step});
  run(device, Sample<T>{.logits = x.view(rows, rows == 0 ? 1 : logits.size() / rows),
                        .temperature = static_cast<float>(o.rules.temperature),
                        .top_k = static_cast<std::int64_t>(o.rules.top_k),
                        .top_p = static_cast<float>(o.rules.top_p),
                        .greedy = o.greedy,
                        .suppressed_token = o.suppressed,
                        .random = {.seed = o.seed, .stream = 3, .step = step.view(1)},
                        .token = token.view(rows)});
  return token.read();
}

/// The same row many times: as many draws.
std::vector<std::int32_t> many(const Device& device, const std::vector<double>& row,
                               std::size_t draws, const Options& o = {}) {
  std::vector<float> logits;
  for (std::size_t i = 0; i < draws; ++i) logits.insert(logits.end(), row.begin(), row.end());
  return draw(device, logits, draws, o);
}

/// Which tokens 300 draws from the row give. Elsewhere than on the CPU, the first sixteen are drawn
/// and are the CPU's, for a row costs an emulated block ten milliseconds.
std::set<std::int32_t> drawn(const Device& device, const std::vector<double>& row,
                             const Options& o = {}) {
  const auto tokens = many(Cpu{}, row, 300, o);
  if (!is_cpu(device)) {
    EXPECT_EQ(many(device, row, 16, o), std::vector(tokens.begin(), tokens.begin() + 16));
  }
  return {tokens.begin(), tokens.end()};
}

/// The uniform number that row n is drawn with, in the 32 bits the op uses.
double uniform_of(const Options& o, std::size_t n) {
  const RandomSource source{.seed = o.seed, .stream = 3};
  return source.words(n / 4, o.step)[n % 4] * 0x1p-32;
}

std::vector<double> random_logits(std::size_t count, double spread, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, spread);
  std::vector<double> logits(count);
  for (double& x : logits) x = normal(random);
  return logits;
}

class SampleOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, SampleOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(SampleOn, GreedyTakesTheFirstOfTheLargest) {  // worked by hand
  const std::vector<float> logits{1, 3, 3, 2, -0.0F, 0, -1, -2, -5, -4, -4, -6};
  EXPECT_EQ(draw(GetParam(), logits, 3, {.greedy = true}), (std::vector<std::int32_t>{1, 0, 1}));
  EXPECT_EQ(draw(GetParam(), logits, 3, {.greedy = true, .suppressed = 1}),
            (std::vector<std::int32_t>{2, 0, 2}));
}

TEST_P(SampleOn, TopKKeepsTheLargestAndOfEqualsTheFirst) {  // worked by hand
  const std::vector<double> row{1, 2, 1, 2, 1, 0};
  const auto with = [&](std::size_t k) { return drawn(GetParam(), row, {.rules = {.top_k = k}}); };
  EXPECT_EQ(with(1), (std::set<std::int32_t>{1}));
  EXPECT_EQ(with(2), (std::set<std::int32_t>{1, 3}));
  EXPECT_EQ(with(3), (std::set<std::int32_t>{0, 1, 3}));
  EXPECT_EQ(with(4), (std::set<std::int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(with(6), (std::set<std::int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(with(99), (std::set<std::int32_t>{0, 1, 2, 3, 4, 5}));
}

TEST_P(SampleOn, TopPKeepsTheFewestThatReachIt) {  // worked by hand
  // Probabilities 1/8, 1/2, 1/8, 1/4, exactly: ln 2 apart is an octave, up to float's rounding.
  const double octave = std::log(2.0);
  const std::vector<double> row{-2 * octave, 0, -2 * octave, -octave};
  const auto with = [&](double p) { return drawn(GetParam(), row, {.rules = {.top_p = p}}); };
  EXPECT_EQ(with(1e-9), (std::set<std::int32_t>{1}));
  EXPECT_EQ(with(0.49), (std::set<std::int32_t>{1}));
  EXPECT_EQ(with(0.51), (std::set<std::int32_t>{1, 3}));
  EXPECT_EQ(with(0.74), (std::set<std::int32_t>{1, 3}));
  EXPECT_EQ(with(0.76), (std::set<std::int32_t>{0, 1, 3})) << "of equals, the first";
  EXPECT_EQ(with(0.88), (std::set<std::int32_t>{0, 1, 2, 3}));
}

TEST_P(SampleOn, TopPStopsWhereTheSumIsReachedExactly) {  // worked by hand
  // Of four equals, two are half exactly. At this temperature 1 apart is an octave exactly, so that
  // the probabilities are 1/8, 1/2, 1/8, 1/4, and every sum falls between two bins of the search.
  EXPECT_EQ(drawn(GetParam(), {7, 7, 7, 7}, {.rules = {.top_p = 0.5}}),
            (std::set<std::int32_t>{0, 1}));
  const double octave = std::log2(std::exp(1.0));
  const auto with = [&](double p) {
    return drawn(GetParam(), {-2, 0, -2, -1}, {.rules = {.temperature = octave, .top_p = p}});
  };
  EXPECT_EQ(with(0.5), (std::set<std::int32_t>{1}));
  EXPECT_EQ(with(0.75), (std::set<std::int32_t>{1, 3}));
  EXPECT_EQ(with(0.875), (std::set<std::int32_t>{0, 1, 3}));
}

TEST_P(SampleOn, TopPIsOfWhatTopKLeft) {
  // Of equal probabilities, top-k leaves four, and 0.6 of those is three; 0.6 of ten would be six.
  EXPECT_EQ(drawn(GetParam(), std::vector<double>(10), {.rules = {.top_k = 4, .top_p = 0.6}}),
            (std::set<std::int32_t>{0, 1, 2}));
}

TEST_P(SampleOn, TheSuppressedTokenIsNeverDrawn) {
  EXPECT_EQ(drawn(GetParam(), {9, 1, 1}, {.suppressed = 0}), (std::set<std::int32_t>{1, 2}));
  EXPECT_EQ(drawn(GetParam(), {9, 1, 1}, {.rules = {.top_k = 1}, .suppressed = 0}),
            (std::set<std::int32_t>{1}));
  EXPECT_EQ(drawn(GetParam(), {9}, {.suppressed = 0}), (std::set<std::int32_t>{-1}));
  // Anywhere in a row: around 512, which is a block of threads and a piece of the CPU's.
  for (const std::int32_t far : {31, 32, 511, 512, 513, 1024, 1299}) {
    SCOPED_TRACE(far);
    std::vector<double> row(1300, -kInfinity);
    row[3] = row[700] = 1;
    row[static_cast<std::size_t>(far)] = 9;
    EXPECT_EQ(drawn(GetParam(), row, {.suppressed = far}), (std::set<std::int32_t>{3, 700}));
    EXPECT_EQ(many(GetParam(), row, 1, {.greedy = true, .suppressed = far}),
              (std::vector<std::int32_t>{3}));
  }
}

TEST_P(SampleOn, MaskedTokensAreNeverDrawnAndRowsWithoutADistributionArePoison) {
  EXPECT_EQ(drawn(GetParam(), {-kInfinity, 0, -kInfinity}), (std::set<std::int32_t>{1}));
  for (const bool greedy : {false, true}) {
    for (const double bad : {std::nan(""), kInfinity}) {
      for (const std::int32_t suppressed : {-1, 600}) {
        std::vector<double> row(700);
        row[600] = bad;
        EXPECT_EQ(many(GetParam(), row, 2, {.greedy = greedy, .suppressed = suppressed}),
                  (std::vector<std::int32_t>{-1, -1}));
      }
    }
    EXPECT_EQ(many(GetParam(), std::vector<double>(40, -kInfinity), 1, {.greedy = greedy}),
              (std::vector<std::int32_t>{-1}));
  }
}

TEST_P(SampleOn, ExtremeTemperaturesAndLogitsAreHandled) {
  EXPECT_EQ(drawn(GetParam(), {1, 2, 1.9999}, {.rules = {.temperature = 1e-30}}),
            (std::set<std::int32_t>{1}));
  EXPECT_EQ(drawn(GetParam(), {-3e38, 3e38, 0}), (std::set<std::int32_t>{1}));
  EXPECT_EQ(drawn(GetParam(), {1, 900, -900}, {.rules = {.temperature = 1e30}}),
            (std::set<std::int32_t>{0, 1, 2}));
}

struct Case {
  std::size_t rows, vocabulary;
  double spread;
  SamplingRules rules;
};
// One token, around a warp, a block of 512, a stretch of the vocabulary, real ones, one that fills
// every stretch, and around the 2,048 tokens that CUDA's cuts hold in shared memory.
const std::vector<Case> kCases{
    {3, 1, 1, {.top_k = 1, .top_p = 0.5}},
    {9, 2, 1, {}},
    {5, 31, 2, {.top_k = 7}},
    {5, 33, 2, {.temperature = 0.7, .top_p = 0.9}},
    {4, 511, 2, {.temperature = 1.3}},
    {4, 513, 3, {.temperature = 0.8, .top_k = 40, .top_p = 0.95}},
    {3, 1025, 1, {.top_k = 1000, .top_p = 0.5}},
    {2, 2049, 0.01, {.top_p = 0.99}},
    {2, 10'007, 2, {.temperature = 0.9, .top_k = 50}},
    {1, 50'257, 3, {.temperature = 0.8, .top_k = 2000, .top_p = 0.92}},
    {1, 1 << 20, 1, {}},
    {2, 2048, 0.01, {.top_p = 0.99}},
    {2, 5000, 0.01, {.top_k = 3000, .top_p = 0.7}},
};

template <class T>
void draws_are_the_oracles(const Device& device) {
  for (const Case& c : kCases) {
    Options o{.rules = c.rules};
    const auto logits = stored<T>(random_logits(c.rows * c.vocabulary, c.spread, 77));
    const auto exact = as_double(logits);
    for (o.step = 1; o.step <= 3; ++o.step) {
      const auto tokens = draw(device, logits, c.rows, o);
      for (std::size_t n = 0; n < c.rows; ++n) {
        const auto first = exact.begin() + static_cast<std::ptrdiff_t>(n * c.vocabulary);
        const auto want = reference::distribution(
            {first, first + static_cast<std::ptrdiff_t>(c.vocabulary)}, c.rules);
        if (want.margin < 1e-6) continue;  // the oracle's own rounding decides
        EXPECT_LT(reference::miss(want.probability, tokens[n], uniform_of(o, n)), 1e-6)
            << test::device_name(device) << ", V = " << c.vocabulary << ", row " << n << ", step "
            << o.step << ": " << tokens[n];
      }
    }
  }
}

TEST_P(SampleOn, DrawsWhatTheOracleDrawsWithTheSameNumber) {
  draws_are_the_oracles<float>(GetParam());
}
TEST_P(SampleOn, DrawsWhatTheOracleDrawsFromBf16) { draws_are_the_oracles<bf16>(GetParam()); }

TEST(Sample, EveryDeviceDrawsTheSameTokens) {
#ifdef __SANITIZE_THREAD__
  constexpr std::int64_t kSteps = 1;  // each takes long here
#else
  constexpr std::int64_t kSteps = 2;
#endif
  CAROUSEL_SKIP_WITHOUT_CUDA();
  for (const Case& c : kCases) {
    // On a coarse grid, so that there are many equals at every threshold.
    for (const double grid : {0.0, 0.5}) {
      auto logits = random_logits(c.rows * c.vocabulary, c.spread, 31);
      if (grid > 0) {
        for (double& x : logits) x = std::round(x / grid) * grid;
      }
      const auto values = stored<float>(logits);
      for (std::int64_t step = 0; step < kSteps; ++step) {
        const Options o{.rules = c.rules, .step = step};
        EXPECT_EQ(draw(*test::cuda_device(), values, c.rows, o), draw(Cpu{}, values, c.rows, o));
      }
    }
  }
}

// Pearson's test with a fixed seed: 20 categories, so 19 degrees of freedom, whose 0.999 quantile
// is 43.8. Sampling uniformly or with another temperature gives thousands. Of the CPU: the others
// draw the same tokens.
TEST(Sample, FrequenciesAreTheProbabilities) {
  const auto row = random_logits(20, 1.0, 9);
  const std::size_t draws = 40'000;
  for (const double temperature : {0.7, 1.0, 2.0}) {
    const SamplingRules rules{.temperature = temperature};
    const auto want = reference::distribution(as_double(stored<float>(row)), rules).probability;
    std::vector<double> count(row.size());
    for (const std::int32_t token : many(Cpu{}, row, draws, {.rules = rules, .seed = 41})) {
      ++count.at(static_cast<std::size_t>(token));
    }
    double statistic = 0;
    for (std::size_t v = 0; v < row.size(); ++v) {
      const double expected = want[v] * static_cast<double>(draws);
      statistic += (count[v] - expected) * (count[v] - expected) / expected;
    }
    EXPECT_LT(statistic, 43.8);
  }
}

// Invariants that need no oracle: a shift of all logits changes nothing, a tight cut is greedy,
// another step draws anew and the same one the same.
TEST_P(SampleOn, ShiftsChangeNothingAndTightCutsAreGreedy) {
  auto logits = stored<float>(random_logits(8 * 600, 2, 3));
  for (float& x : logits) x = std::round(x * 64) / 64;  // so that a shift is exact
  auto shifted = logits;
  for (float& x : shifted) x += 100;
  const Options o{.rules = {.temperature = 0.9, .top_k = 30, .top_p = 0.9}};
  const auto tokens = draw(GetParam(), logits, 8, o);
  EXPECT_EQ(draw(GetParam(), shifted, 8, o), tokens);
  EXPECT_EQ(draw(GetParam(), logits, 8, o), tokens);
  Options later = o;
  later.step = 2;
  EXPECT_NE(draw(GetParam(), logits, 8, later), tokens);
  const auto best = draw(GetParam(), logits, 8, {.greedy = true});
  EXPECT_EQ(draw(GetParam(), logits, 8, {.rules = {.top_k = 1}}), best);
  EXPECT_EQ(draw(GetParam(), logits, 8, {.rules = {.top_p = 1e-6}}), best);
}

TEST(SampleWeight, IsThePowerOfTwoToOneInAHundredMillion) {
  for (std::uint32_t d = 0; d < sampling::kFarthest; d += 1'234'567) {
    const double want = std::exp2(40 - d * 0x1p-25);
    // An integer: below a hundred million, rounding it down is the larger error.
    EXPECT_NEAR(static_cast<double>(sampling::weight(d)), want, 1e-8 * want + 1) << d;
  }
  EXPECT_EQ(sampling::weight(0), sampling::Weight{1} << 40);
  EXPECT_EQ(sampling::weight(1U << 25), sampling::Weight{1} << 39);
  EXPECT_EQ(sampling::weight(sampling::kFarthest), 0);
}

TEST(SamplePreference, GivesItsLogitAndIndexBack) {
  for (const float logit : {-3.4e38F, -1.5F, -1e-40F, 0.0F, 1e-40F, 2.25F, 3.4e38F, -INFINITY}) {
    for (const std::int64_t index : {std::int64_t{0}, Sample<float>::kMaxVocabulary - 1}) {
      const std::uint64_t preference = sampling::preference(logit, index);
      EXPECT_EQ(sampling::logit_of(preference), logit);
      EXPECT_EQ(sampling::index_of(preference), index);
    }
  }
}

TEST_P(SampleOn, NoRowsIsNotAnError) {
  EXPECT_TRUE(draw(GetParam(), std::vector<float>{}, 0).empty());
}

TEST(Sample, RefusesWrongArguments) {
  const Device cpu = Cpu{};
  const Buffer<float> logits(cpu, 6);
  const Buffer<std::int32_t> token(cpu, 2);
  const Buffer<std::int64_t> step(cpu, std::vector<std::int64_t>{1});
  const Sample<float> good{
      .logits = logits.view(2, 3), .random = {.step = step.view(1)}, .token = token.view(2)};
  EXPECT_NO_THROW(good.check());
  auto bad = good;
  bad.logits = logits.view(3, 2);
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.logits.extent = {2, 0};
  EXPECT_THROW(bad.check(), ShapeError);
  bad.logits.extent = {2, Sample<float>::kMaxVocabulary + 1};
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.random.step = {};
  EXPECT_THROW(bad.check(), ShapeError);
  bad.greedy = true;
  EXPECT_NO_THROW(bad.check());
  for (const float temperature : {0.0F, -1.0F, INFINITY, NAN}) {
    bad = good;
    bad.temperature = temperature;
    EXPECT_THROW(bad.check(), ConfigError);
  }
  for (const float top_p : {0.0F, 1.5F, NAN}) {
    bad = good;
    bad.top_p = top_p;
    EXPECT_THROW(bad.check(), ConfigError);
  }
  bad = good;
  bad.top_k = -1;
  EXPECT_THROW(bad.check(), ConfigError);
}

}  // namespace
}  // namespace carousel
