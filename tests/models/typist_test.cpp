// The keyboard's geometry, and the tables of a typist.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "models/hmm/keyboard.h"

namespace carousel {
namespace {

std::string sorted(std::string text) {
  std::sort(text.begin(), text.end());
  return text;
}

TEST(Keyboards, NeighboursTouch) {
  EXPECT_EQ(sorted(neighbouring_keys('g')), "bfhtvy");
  EXPECT_EQ(sorted(neighbouring_keys('q')), "aw");
  EXPECT_EQ(sorted(neighbouring_keys('z')), "asx");
  EXPECT_EQ(sorted(neighbouring_keys('p')), sorted("o[;l"));
  EXPECT_EQ(sorted(neighbouring_keys('Q')), sorted("WA"));
  EXPECT_EQ(sorted(neighbouring_keys('m')), sorted("njk,"));
  for (const char none : {' ', '\n', '7', '\0', '\x80'}) EXPECT_EQ(neighbouring_keys(none), "");
}

TEST(Keyboards, NeighboursAreMutual) {
  int pairs = 0;
  for (char one = ' '; one < 127; ++one) {
    const std::string neighbours = neighbouring_keys(one);
    EXPECT_LE(neighbours.size(), 6U) << one;
    for (const char other : neighbours) {
      EXPECT_NE(neighbouring_keys(other).find(one), std::string::npos) << one << other;
      ++pairs;
    }
  }
  EXPECT_EQ(neighbouring_keys('a').size(), 4U);
  EXPECT_EQ(pairs, 4 * (12 + 10 + 9) + 4 * (22 + 20));
}

// a has q, w, s and z beside it, s has a, w, e, d, x and z, d has s, e, r, f, c and x, z has a, s and x.
const std::vector<std::string> kTexts{"<bos>", "a", "s", "d", "z", " ", "<unk>"};
constexpr std::size_t kCount = 7;

TEST(Typists, TablesAreThoseOfTheCounts) {
  Typist typist{
      .texts = kTexts, .typo_probability = 0.12, .smoothing = 0.5, .never = 0, .unknown = 6};
  std::vector<std::int64_t> bigrams(kCount * kCount), starts{9, 3, 0, 1, 0, 0, 0};
  bigrams[1 * kCount + 2] = 4;  // a s
  bigrams[1 * kCount + 0] = 7;  // a <bos>, which does not count
  HmmTables tables = typist.tables(starts, bigrams);
  EXPECT_EQ(tables.states, 7);
  const double sum = 4 + 6 * 0.5, starts_expected[] = {0, 3.5, 0.5, 1.5, 0.5, 0.5, 0.5};
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_NEAR(tables.start[i], starts_expected[i] / sum, 1e-15);
    EXPECT_NEAR(tables.transition_from(1)[i], (i == 0 ? 0 : i == 2 ? 4.5 : 0.5) / sum, 1e-15);
    EXPECT_NEAR(tables.transition_from(5)[i], i == 0 ? 0 : 1 / 6.0, 1e-15);
  }
  const auto expect_emission = [&](const double(&expected)[kCount][kCount]) {
    for (std::size_t x = 0; x < kCount; ++x) {
      for (std::size_t z = 0; z < kCount; ++z) {
        EXPECT_NEAR(tables.emission_of(static_cast<int>(x))[z], expected[x][z], 1e-15) << x << z;
      }
    }
  };
  // [typed][meant]
  expect_emission({{0, 0, 0, 0, 0, 0, 0},
                   {1, 0.88, 0.02, 0, 0.04, 0, 0},
                   {0, 0.03, 0.88, 0.02, 0.04, 0, 0},
                   {0, 0, 0.02, 0.88, 0, 0, 0},
                   {0, 0.03, 0.02, 0, 0.88, 0, 0},
                   {0, 0, 0, 0, 0, 1, 0},
                   {0, 0.06, 0.06, 0.10, 0.04, 0, 1}});
  typist.unknown = -1;  // keys without a token are not hit
  tables = typist.tables(starts, bigrams);
  expect_emission({{0, 0, 0, 0, 0, 0, 0},
                   {1, 0.88, 0.04, 0, 0.06, 0, 0},
                   {0, 0.06, 0.88, 0.12, 0.06, 0, 0},
                   {0, 0, 0.04, 0.88, 0, 0, 0},
                   {0, 0.06, 0.04, 0, 0.88, 0, 0},
                   {0, 0, 0, 0, 0, 1, 0},
                   {0, 0, 0, 0, 0, 0, 1}});
}

TEST(Typists, ATokenThatNothingFollowsHasARowWithoutSmoothing) {
  const Typist typist{.texts = kTexts, .never = 0};
  const HmmTables tables =
      typist.tables(std::vector<std::int64_t>(kCount), std::vector<std::int64_t>(kCount * kCount));
  for (std::int64_t i = 0; i < 7; ++i) {
    EXPECT_EQ(tables.transition_from(i)[0], 0);
    EXPECT_EQ(lane_sum(tables.transition_from(i)), 1);
  }
  EXPECT_EQ(lane_sum(tables.start), 1);
}

TEST(Typists, BigramsAreCountedOverPieces) {
  constexpr std::int64_t kTokens = 70'000;  // more than a piece
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(kTokens));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i % 3);
  const std::vector<std::int64_t> counts = count_bigrams(tokens_in_memory(tokens), 3);
  const std::vector<std::int64_t> expected{0, 23'333, 0, 0, 0, 23'333, 23'333, 0, 0};
  EXPECT_EQ(counts, expected);
}

}  // namespace
}  // namespace carousel
