#include "kernels/common/alias_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/random.h"

namespace carousel {
namespace {

using Weights = std::vector<double>;

AliasTable table_of(const std::vector<std::int64_t>& columns) {
  return {.columns = {columns.data(), {static_cast<std::int64_t>(columns.size())}}};
}

/// How probable the columns make each word, for words of 32 bits that are all alike.
Weights probabilities(const std::vector<std::int64_t>& columns) {
  Weights result(columns.size());
  for (std::size_t v = 0; v < columns.size(); ++v) {
    const auto entry = static_cast<std::uint64_t>(columns[v]);
    const double keep = static_cast<double>(entry >> 32U) * 0x1p-32;
    result[v] += keep / static_cast<double>(columns.size());
    result.at(entry & 0xFFFFFFFFU) += (1 - keep) / static_cast<double>(columns.size());
  }
  return result;
}

Weights zipf(std::size_t words, double power) {
  Weights result;
  for (std::size_t v = 0; v < words; ++v) {
    result.push_back(std::pow(static_cast<double>(v + 1), -power));
  }
  return result;
}

TEST(AliasTable, KeepsOrPassesOnByHand) {
  // Weights 1 and 3: column 0 keeps half of its draws, all others are word 1.
  const std::vector<std::int64_t> columns = alias_columns(Weights{1, 3});
  const AliasTable table = table_of(columns);
  EXPECT_EQ(table.draw(0, 0x7FFFFFFFU), 0);
  EXPECT_EQ(table.draw(0, 0x80000000U), 1);
  EXPECT_EQ(table.draw(0x7FFFFFFFU, 0), 0);
  EXPECT_EQ(table.draw(0x80000000U, 0), 1);
  EXPECT_EQ(table.draw(0xFFFFFFFFU, 0xFFFFFFFFU), 1);
}

TEST(AliasTable, HoldsTheDistributionItWasMadeOf) {
  const std::vector<Weights> cases{
      {7},           {0, 0, 5},   {1, 1, 1, 1},      {0, 2, 0, 6, 1e-300},
      zipf(1000, 1), zipf(3, 40), zipf(100000, 0.75)};
  for (const Weights& weight : cases) {
    const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
    const Weights got = probabilities(alias_columns(weight));
    for (std::size_t v = 0; v < weight.size(); ++v) {
      ASSERT_NEAR(got[v], weight[v] / sum, 0x1p-32) << v << " of " << weight.size();
      if (weight[v] == 0) {
        ASSERT_EQ(got[v], 0) << v << " of " << weight.size();
      }
    }
  }
}

// χ² of 2²⁰ draws over 200 words: 199 degrees of freedom, so 199 ± 20. A sampler that is right exceeds
// 300 once in 10⁵ seeds; one that ignores the thresholds gives over 10⁵.
TEST(AliasTable, DrawsByPhiloxFollowTheWeights) {
  const Weights weight = zipf(200, 0.75);
  const std::vector<std::int64_t> columns = alias_columns(weight);
  const AliasTable table = table_of(columns);
  const RandomSource source{.seed = 3, .stream = 5};
  Weights counts(weight.size());
  constexpr std::uint64_t kBlocks = 1U << 19U;
  for (std::uint64_t block = 0; block < kBlocks; ++block) {
    const auto words = source.words(block, 11);
    counts.at(static_cast<std::size_t>(table.draw(words[0], words[1]))) += 1;
    counts.at(static_cast<std::size_t>(table.draw(words[2], words[3]))) += 1;
  }
  const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
  double chi_squared = 0;
  for (std::size_t v = 0; v < weight.size(); ++v) {
    const double expected = 2 * kBlocks * weight[v] / sum;
    chi_squared += (counts[v] - expected) * (counts[v] - expected) / expected;
  }
  EXPECT_LT(chi_squared, 300);
  EXPECT_GT(chi_squared, 120);
}

TEST(AliasTable, RefusesWhatIsNoDistribution) {
  EXPECT_THROW(alias_columns(Weights{}), ConfigError);
  EXPECT_THROW(alias_columns(Weights{0, 0}), ConfigError);
  EXPECT_THROW(alias_columns(Weights{1, -1e-9}), ConfigError);
  EXPECT_THROW(alias_columns(Weights{1, std::numeric_limits<double>::quiet_NaN()}), ConfigError);
  EXPECT_THROW(alias_columns(Weights{1, std::numeric_limits<double>::infinity()}), ConfigError);
  EXPECT_THROW(alias_columns(Weights{1e308, 1e308}), ConfigError);
}

}  // namespace
}  // namespace carousel
