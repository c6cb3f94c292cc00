// The passes of a hidden Markov model against the enumeration of all paths and against logarithms.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "models/hmm/forward_backward.h"
#include "tests/reference/hmm.h"
#include "tests/support/hmm.h"

namespace carousel {
namespace {

using Tokens = std::vector<std::int32_t>;
using test::random_hmm;
using test::sampled;
using test::tables_of;

TEST(HmmPasses, AgreeWithTheEnumerationOfAllPaths) {
  std::mt19937 random(1);
  int impossible = 0;
  for (int round = 0; round < 400; ++round) {
    const std::size_t states = 1 + random() % 4, vocabulary = 1 + random() % 4;
    const reference::Hmm hmm = random_hmm(random, states, vocabulary, 2, round % 2 == 1);
    std::vector<int> tokens(1 + random() % 6);
    for (int& token : tokens) token = static_cast<int>(random() % vocabulary);
    const reference::Enumeration expected(hmm, tokens);
    const HmmTables tables = tables_of(hmm);
    ForwardBackward passes(tables);
    const double log_probability = passes.forward(tokens);
    const Viterbi viterbi(tables);
    Tokens path(tokens.size());
    const double of_path = viterbi.path(tokens, path);
    if (expected.probability == 0) {
      EXPECT_EQ(log_probability, -INFINITY);
      EXPECT_EQ(of_path, -INFINITY);
      ++impossible;
      continue;
    }
    EXPECT_NEAR(log_probability, std::log(expected.probability), 1e-12) << round;
    EXPECT_NEAR(of_path, std::log(expected.path_probability), 1e-12) << round;
    EXPECT_NEAR(std::log(reference::joint(hmm, path, tokens)), of_path, 1e-12) << round;
    passes.backward();
    HmmCounts counts(tables);
    passes.count(counts);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const reference::Enumeration prefix(
          hmm, std::vector<int>(tokens.begin(), tokens.begin() + static_cast<int>(t) + 1));
      for (std::size_t z = 0; z < states; ++z) {
        EXPECT_NEAR(passes.smoothed(t)[z], expected.smoothed[t][z], 1e-12) << round;
        EXPECT_NEAR(passes.filtered(t)[z], prefix.smoothed[t][z], 1e-12) << round;
      }
    }
    for (std::size_t i = 0; i < states; ++i) {
      for (std::size_t j = 0; j < states; ++j) {
        const std::size_t place = i * static_cast<std::size_t>(tables.width) + j;
        EXPECT_NEAR(counts.transition[place] * tables.transition[place], expected.transitions[i][j],
                    1e-12)
            << round;
      }
    }
    EXPECT_EQ(counts.tokens, std::ssize(tokens));
    EXPECT_NEAR(std::accumulate(counts.emission.begin(), counts.emission.end(), 0.0),
                static_cast<double>(tokens.size()), 1e-12);
  }
  EXPECT_GT(impossible, 20);
  EXPECT_LT(impossible, 200);
}

// As many states as fill vectors and not, and so many tokens that probabilities leave a double's range
// and LogProduct takes logs on the way.
TEST(HmmPasses, AgreeWithLogarithmsOfLongSequences) {
  std::mt19937 random(2);
  for (const std::size_t states : {3, 8, 19, 33}) {
    const reference::Hmm hmm = random_hmm(random, states, 30, 4);
    const Tokens tokens = sampled(random, hmm, 1200);
    const reference::LogPasses expected(hmm, tokens);
    const HmmTables tables = tables_of(hmm);
    ForwardBackward passes(tables);
    const double log_probability = passes.forward(tokens);
    EXPECT_LT(expected.log_probability, -1000);
    EXPECT_NEAR(log_probability / static_cast<double>(expected.log_probability), 1, 1e-12);
    passes.backward();
    double worst = 0;
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      for (std::size_t z = 0; z < states; ++z) {
        const auto filtered = static_cast<double>(expected.filtered(t, z)),
                   smoothed = static_cast<double>(expected.smoothed(t, z));
        worst = std::max({worst, std::abs(passes.filtered(t)[z] - filtered),
                          std::abs(passes.smoothed(t)[z] - smoothed)});
      }
    }
    EXPECT_LT(worst, 1e-12) << states;
    HmmCounts counts(tables);
    passes.count(counts);
    for (std::size_t i = 0; i < states; ++i) {
      for (std::size_t z = 0; z < states; ++z) {
        long double sum = 0;
        for (std::size_t t = 1; t < tokens.size(); ++t) {
          sum += expected.transition(hmm, tokens, t, i, z);
        }
        const std::size_t place = i * static_cast<std::size_t>(tables.width) + z;
        EXPECT_NEAR(counts.transition[place] * tables.transition[place], static_cast<double>(sum),
                    1e-12 * static_cast<double>(tokens.size()))
            << i << ' ' << z;
      }
    }
  }
}

TEST(HmmPasses, ATokenThatCannotComeTellsNothing) {
  // State 0 emits 0, state 1 emits 1, none emits 2; 0 is followed by 0, 1 by both.
  const reference::Hmm hmm{
      .start = {0.5, 0.5}, .transition = {{1, 0}, {0.5, 0.5}}, .emission = {{1, 0, 0}, {0, 1, 0}}};
  const HmmTables tables = tables_of(hmm);
  ForwardBackward passes(tables);
  const Tokens tokens{1, 2, 1};
  EXPECT_EQ(passes.forward(tokens), -INFINITY);
  passes.backward();
  EXPECT_EQ(passes.filtered(1)[0], 0.5);
  EXPECT_EQ(passes.filtered(1)[1], 0.5);
  EXPECT_EQ(passes.smoothed(1)[1], 1) << "1 comes after it";
  Tokens path(3);
  EXPECT_EQ(Viterbi(tables).path(tokens, path), -INFINITY);
  EXPECT_EQ(path, (Tokens{1, 1, 1}));
}

TEST(HmmPasses, ALogOfAProductIsTheSumOfTheLogs) {
  LogProduct product;
  double sum = 0;
  for (const double factor : {0.5, 1e-99, 1e-99, 1e-300, 1e-99, 1e-101, 1.0, 0.3}) {
    product.multiply(factor);
    sum += std::log(factor);
    EXPECT_NEAR(product.value() / sum, 1, 1e-14);
  }
  product.multiply(0);
  EXPECT_EQ(product.value(), -INFINITY);
}

}  // namespace
}  // namespace carousel
