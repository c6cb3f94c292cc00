#include "kernels/negative_sampling/negative_sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/negative_sampling.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;
using Ids = std::vector<std::int32_t>;

struct Solution {
  Ids choice, answer;
  bool operator==(const Solution&) const = default;
};

struct Problem {
  std::vector<std::int64_t> columns;
  Ids target;
  std::size_t words = 5, group = 1;
  reference::Draw draw{3, 4, 5};
};

Solution solve(const Device& device, const Problem& p) {
  const std::size_t N = p.target.size(), V = p.columns.size();
  const Buffer<std::int32_t> target(device, p.target), choice(device, N * (1 + p.words)),
      answer(device, N * (1 + p.words));
  const Buffer<std::int64_t> columns(device, p.columns),
      step(device, std::vector<std::int64_t>{p.draw.step});
  run(device, NegativeSampling{.target = target.view(N),
                               .noise = {columns.view(V)},
                               .group = static_cast<std::int64_t>(p.group),
                               .source = {p.draw.seed, p.draw.stream, step.view(1)},
                               .choice = choice.view(N, 1 + p.words),
                               .answer = answer.view(N, 1 + p.words)});
  return {choice.read(), answer.read()};
}

Solution oracle(const Problem& p) {
  Solution s;
  for (std::size_t n = 0; n < p.target.size(); ++n) {
    const std::int32_t of = p.target[n];
    s.choice.push_back(of == -1 ? kNoToken : of);
    s.answer.push_back(1);
    for (std::size_t k = 0; k < p.words; ++k) {
      const std::int32_t word = reference::drawn_word(p.columns, p.draw, n / p.group * p.words + k);
      s.choice.push_back(of == -1 || word == of ? kNoToken : word);
      s.answer.push_back(0);
    }
  }
  return s;
}

/// Weights as those of words, 1 / rank, with some that must never be drawn.
std::vector<double> zipf(std::size_t count) {
  std::vector<double> weights;
  for (std::size_t i = 0; i < count; ++i) {
    weights.push_back(i % 7 == 3 ? 0 : 1 / static_cast<double>(i + 1));
  }
  return weights;
}

Ids random_targets(std::size_t rows, std::size_t vocab) {
  std::mt19937 random(static_cast<unsigned>(rows));
  Ids targets(rows);
  for (auto& t : targets) t = static_cast<std::int32_t>(random() % (vocab + 1)) - 1;
  return targets;
}

// Leg 1: by hand. One word has all the weight: it is drawn wherever it is not the target.
TEST(NegativeSampling, DrawsTheOnlyWordThereIs) {
  for (const Device& device : test::devices()) {
    const Solution got = solve(device, {.columns = alias_columns(std::vector<double>{0, 2, 0}),
                                        .target = {0, 1, -1, 7},
                                        .words = 2});
    EXPECT_EQ(got.choice,
              (Ids{0, 1, 1, 1, kNoToken, kNoToken, kNoToken, kNoToken, kNoToken, 7, 1, 1}));
    EXPECT_EQ(got.answer, (Ids{1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0}));
  }
}

// Leg 3: every device against the oracle.
TEST(NegativeSampling, SweepEqualsTheOracle) {
  for (const std::size_t rows : {0U, 1U, 6U, 60U, 258U, 1200U}) {
    for (const std::size_t vocab : {1U, 2U, 50U, 33'000U}) {
      for (const std::size_t words : {1U, 5U, 20U}) {
        for (const std::size_t group : {1U, 7U, 32U}) {
          const Problem p{.columns = alias_columns(zipf(vocab)),
                          .target = random_targets(rows, vocab),
                          .words = words,
                          .group = group,
                          .draw = {rows, vocab, std::int64_t{1} << 33}};
          const Solution want = oracle(p);
          for (const Device& device : test::devices()) {
            EXPECT_TRUE(solve(device, p) == want)
                << test::device_name(device) << " " << rows << " " << vocab << " " << words;
          }
        }
      }
    }
  }
}

// Leg 4: the contract on bad input.
TEST(NegativeSampling, RefusesWhatItsContractRefuses) {
  Ids ids(40);
  std::vector<std::int64_t> columns(5);
  std::int64_t step = 1;
  std::int32_t* const i = ids.data();
  const NegativeSampling good{.target = {i, {6}},
                              .noise = {{columns.data(), {5}}},
                              .group = 3,
                              .source = {.step = {&step, {1}}},
                              .choice = {i, {6, 3}},
                              .answer = {i, {6, 3}}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    NegativeSampling bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.noise.columns.extent = {0}; });
  refused([](auto& op) { op.group = 0; });
  refused([](auto& op) { op.choice.extent = {5, 3}; });
  refused([](auto& op) { op.choice.extent = op.answer.extent = {6, 1}; });
  refused([](auto& op) { op.answer.extent = {6, 2}; });
  refused([](auto& op) { op.source.step = {}; });
}

// Leg 2 is of the table (alias_table_test.cpp): nothing here has a gradient. Leg 5: χ² of what is drawn against the weights, with words of each row, and shared ones. Its mean is
// the degrees of freedom and its deviation √2 times their root.
TEST(NegativeSampling, DrawsFollowTheWeights) {
  const std::size_t vocab = 200, rows = 30'000;
  const std::vector<double> weights = zipf(vocab);
  double sum = 0;
  for (const double w : weights) sum += w;
  for (const Device& device : test::devices()) {
    for (const std::size_t group : {1U, 3U}) {
      // The target is no word of the table's, so that no draw is taken back.
      const Problem p{.columns = alias_columns(weights),
                      .target = Ids(rows, static_cast<std::int32_t>(vocab)),
                      .group = group};
      const Ids choice = solve(device, p).choice;
      std::vector<double> seen(vocab, 0.0);
      double draws = 0;
      for (std::size_t n = 0; n < rows; n += group, draws += 5) {
        for (std::size_t k = 1; k < 6; ++k) ++seen[static_cast<std::size_t>(choice[n * 6 + k])];
      }
      double chi_squared = 0, freedom = -1;
      for (std::size_t v = 0; v < vocab; ++v) {
        const double expected = draws * weights[v] / sum;
        if (expected == 0) {
          EXPECT_EQ(seen[v], 0) << v;
          continue;
        }
        chi_squared += (seen[v] - expected) * (seen[v] - expected) / expected;
        ++freedom;
      }
      EXPECT_NEAR(chi_squared, freedom, 4 * std::sqrt(2 * freedom)) << test::device_name(device);
    }
  }
}

TEST(NegativeSampling, EachStepDrawsOtherWordsAndAGroupTheSame) {
  for (const Device& device : test::devices()) {
    Problem p{.columns = alias_columns(zipf(1000)), .target = Ids(60, 999), .group = 6};
    const Ids choice = solve(device, p).choice;
    for (std::size_t i = 0; i < choice.size(); ++i)
      EXPECT_EQ(choice[i], choice[i / 36 * 36 + i % 6]);
    EXPECT_NE(Ids(choice.begin(), choice.begin() + 6),
              Ids(choice.begin() + 36, choice.begin() + 42));
    ++p.draw.step;
    EXPECT_NE(solve(device, p).choice, choice);
  }
}

}  // namespace
}  // namespace carousel
