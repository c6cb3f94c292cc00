#include "kernels/top_k/top_k.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul.h"
#include "tests/reference/top_k.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Indices = std::vector<std::int32_t>;

/// Queries against a table, in double as the oracle sees them.
struct Case {
  std::size_t queries, width, rows, kept;
  std::vector<double> query, table;
  std::vector<std::set<std::size_t>> excluded{};  ///< of each query, or of none
};

struct Found {
  Indices index;
  std::vector<float> score, all;
};

template <class T>
Found find(const Device& device, const Case& c) {
  std::size_t most = 0;
  for (const auto& rows : c.excluded) most = std::max(most, rows.size());
  Indices excluded;
  for (const auto& rows : c.excluded) {
    for (const std::size_t row : rows) excluded.push_back(static_cast<std::int32_t>(row));
    excluded.resize(excluded.size() + most - rows.size(), -1);
  }
  const Buffer<T> query(device, test::stored<T>(c.query)), table(device, test::stored<T>(c.table));
  const Buffer<std::int32_t> out(device, excluded), index(device, c.queries * c.kept);
  const Buffer<float> all(device, c.queries * c.rows), score(device, c.queries * c.kept);
  TopK<T> op{.query = query.view(c.queries, c.width),
             .table = table.view(c.rows, c.width),
             .all = all.view(c.queries, c.rows),
             .index = index.view(c.queries, c.kept),
             .score = score.view(c.queries, c.kept)};
  if (most > 0) op.excluded = out.view(c.queries, most);
  run(device, op);
  return {index.read(), score.read(), all.read()};
}

/// Queries of width 1 and value 1, so that the scores are the table's numbers, exactly.
Case scores_of(const std::vector<double>& table, std::size_t kept, std::size_t queries = 1) {
  return {queries, 1, table.size(), kept, std::vector<double>(queries, 1), table};
}

std::vector<double> random_numbers(std::size_t count, unsigned seed, double grid = 0) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> numbers(count);
  for (double& x : numbers) {
    x = uniform(random);
    if (grid > 0) x = std::round(x / grid) * grid;
  }
  return numbers;
}

reference::Rows rows_of(const std::vector<double>& numbers, std::size_t width) {
  reference::Rows rows;
  for (auto at = numbers.begin(); at != numbers.end(); at += static_cast<std::ptrdiff_t>(width)) {
    rows.emplace_back(at, at + static_cast<std::ptrdiff_t>(width));
  }
  return rows;
}

class TopKOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, TopKOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(TopKOn, FindsTheRowsOfLargestProduct) {  // worked by hand
  const Case c{.queries = 2,
               .width = 2,
               .rows = 4,
               .kept = 3,
               .query = {1, 2, -1, 0.5},
               .table = {1, 1, 3, 0, 0, -2, 2, 2}};
  const Found found = find<float>(GetParam(), c);
  EXPECT_EQ(found.all, (std::vector<float>{3, 3, -4, 6, -0.5, -3, -1, -1}));
  EXPECT_EQ(found.index, (Indices{3, 0, 1, 0, 2, 3}));
  EXPECT_EQ(found.score, (std::vector<float>{6, 3, 3, -0.5, -1, -1}));
}

TEST_P(TopKOn, OfEqualsTheLowerRowComesFirst) {  // worked by hand
  EXPECT_EQ(find<float>(GetParam(), scores_of({2, 1, 2, -0.0, 0, 2, -1}, 6)).index,
            (Indices{0, 2, 5, 1, 3, 4}));
  EXPECT_EQ(find<float>(GetParam(), scores_of(std::vector<double>(5000, 0.25), 3)).index,
            (Indices{0, 1, 2}));
}

TEST_P(TopKOn, ExcludedRowsAreNeverChosen) {  // worked by hand
  Case c = scores_of({5, 4, 3, 2}, 3, 3);
  c.excluded = {{0, 2}, {}, {0, 1, 2, 3}};
  const Found found = find<float>(GetParam(), c);
  EXPECT_EQ(found.index, (Indices{1, 3, -1, 0, 1, 2, -1, -1, -1}));
  EXPECT_EQ(found.score,
            (std::vector<float>{4, 2, -kInfinity, 5, 4, 3, -kInfinity, -kInfinity, -kInfinity}));
  // No row of the table excludes nothing.
  c = scores_of({5, 4}, 2);
  c.excluded = {{2, 77}};
  EXPECT_EQ(find<float>(GetParam(), c).index, (Indices{0, 1}));
}

TEST_P(TopKOn, InfinitiesAreOrderedAndNaNIsPoison) {
  const double inf = kInfinity;
  EXPECT_EQ(find<float>(GetParam(), scores_of({-inf, 3, inf, -1}, 4)).index, (Indices{2, 1, 3, 0}));
  for (const std::size_t at : {0U, 31U, 32U, 511U, 512U, 699U}) {
    std::vector<double> table = random_numbers(700, 8);
    table[at] = kNaN;
    Case c = scores_of(table, 2);
    for (const bool excluded : {false, true}) {
      if (excluded) c.excluded = {{at}};
      const Found found = find<float>(GetParam(), c);
      EXPECT_EQ(found.index, (Indices{-1, -1})) << at;
      EXPECT_TRUE(std::isnan(found.score[0]) && std::isnan(found.score[1])) << at;
    }
  }
  // Of one query, and not of those beside it.
  const Found found = find<float>(
      GetParam(),
      {.queries = 2, .width = 1, .rows = 2, .kept = 1, .query = {kNaN, 1}, .table = {1, 2}});
  EXPECT_EQ(found.index, (Indices{-1, 1}));
}

// Around a warp, CUDA's block of 512, its list of 2,048, and the vocabulary of a small model; with
// few and as many as can be kept. On a coarse grid, so that many are equal at every threshold, sums
// are exact and the order is the oracle's to the last row; on none, so that they are rounded.
struct Size {
  std::size_t queries, width, rows, kept;
};
const std::vector<Size> kSizes{{1, 1, 1, 1},       {3, 2, 31, 5},      {2, 5, 33, 33},
                               {2, 7, 32, 40},     {2, 3, 511, 10},    {1, 16, 513, 1},
                               {2, 9, 2049, 1024}, {1, 4, 5000, 1000}, {1, 100, 10007, 4}};

Case random_case(const Size& s, double grid) {
  Case c{s.queries,
         s.width,
         s.rows,
         s.kept,
         random_numbers(s.queries * s.width, 5, grid),
         random_numbers(s.rows * s.width, 6, grid)};
  for (std::size_t n = 0; n < s.queries; ++n) c.excluded.push_back({n, (7 * n + 3) % s.rows});
  return c;
}

template <class T>
void choice_is_the_oracles_where_sums_are_exact(const Device& device) {
  for (const Size& s : kSizes) {
    const Case c = random_case(s, 0.25);
    const Found found = find<T>(device, c);
    const reference::Rows queries = rows_of(c.query, s.width), table = rows_of(c.table, s.width);
    for (std::size_t n = 0; n < s.queries; ++n) {
      const std::vector<double> scores = reference::scores(queries[n], table);
      const auto want = reference::largest(scores, s.kept, c.excluded[n]);
      for (std::size_t k = 0; k < s.kept; ++k) {
        const std::size_t at = n * s.kept + k;
        const bool none = k >= want.size();
        ASSERT_EQ(found.index[at], none ? -1 : static_cast<std::int32_t>(want[k]))
            << "V = " << s.rows << ", query " << n << ", place " << k;
        ASSERT_EQ(found.score[at], none ? -kInfinity : static_cast<float>(scores[want[k]]));
      }
    }
  }
}

TEST_P(TopKOn, TheChoiceIsTheOracles) {
  choice_is_the_oracles_where_sums_are_exact<float>(GetParam());
}
TEST_P(TopKOn, TheChoiceAmongBf16IsTheOracles) {
  choice_is_the_oracles_where_sums_are_exact<bf16>(GetParam());
}

// What is chosen among rounded scores is exact again: the oracle sorts the scores that the op wrote.
template <class T>
void scores_are_products_and_the_choice_is_theirs(const Device& device) {
  for (const Size& s : kSizes) {
    Case c = random_case(s, 0);
    c.query = test::as_double(test::stored<T>(c.query));
    c.table = test::as_double(test::stored<T>(c.table));
    const Found found = find<T>(device, c);
    const reference::Rows queries = rows_of(c.query, s.width), table = rows_of(c.table, s.width);
    std::vector<double> exact;
    for (std::size_t n = 0; n < s.queries; ++n) {
      const std::vector<double> scores = reference::scores(queries[n], table);
      exact.insert(exact.end(), scores.begin(), scores.end());
      const auto begin = found.all.begin() + static_cast<std::ptrdiff_t>(n * s.rows);
      const std::vector<double> written(begin, begin + static_cast<std::ptrdiff_t>(s.rows));
      const auto want = reference::largest(written, s.kept, c.excluded[n]);
      for (std::size_t k = 0; k < want.size(); ++k) {
        ASSERT_EQ(found.index[n * s.kept + k], static_cast<std::int32_t>(want[k]))
            << "V = " << s.rows << ", query " << n << ", place " << k;
        ASSERT_EQ(found.score[n * s.kept + k], static_cast<float>(written[want[k]]));
      }
    }
    EXPECT_TRUE(test::close(found.all, exact, kMatmulTolerance.f32)) << "V = " << s.rows;
  }
}

TEST_P(TopKOn, ScoresAreProductsAndTheChoiceIsTheirs) {
  scores_are_products_and_the_choice_is_theirs<float>(GetParam());
}
TEST_P(TopKOn, ScoresOfBf16AreProductsAndTheChoiceIsTheirs) {
  scores_are_products_and_the_choice_is_theirs<bf16>(GetParam());
}

// Invariants that need no oracle: fewer are the first of more, a row is nearest to itself, and
// queries do not depend on those beside them.
TEST_P(TopKOn, FewerAreTheFirstOfMoreAndAUnitRowIsNearestToItself) {
  constexpr std::size_t kWidth = 6, kRows = 700;
  std::vector<double> table = random_numbers(kRows * kWidth, 21);
  for (std::size_t v = 0; v < kRows; ++v) {
    double square = 0;
    for (std::size_t e = 0; e < kWidth; ++e) square += std::pow(table[v * kWidth + e], 2);
    for (std::size_t e = 0; e < kWidth; ++e) table[v * kWidth + e] /= std::sqrt(square);
  }
  const std::vector<double> query(table.begin() + 40 * kWidth, table.begin() + 43 * kWidth);
  const Found more = find<float>(GetParam(), {3, kWidth, kRows, 20, query, table});
  const Found fewer = find<float>(GetParam(), {3, kWidth, kRows, 7, query, table});
  for (std::size_t n = 0; n < 3; ++n) {
    EXPECT_EQ(more.index[n * 20], static_cast<std::int32_t>(40 + n));
    for (std::size_t k = 0; k < 7; ++k) EXPECT_EQ(fewer.index[n * 7 + k], more.index[n * 20 + k]);
  }
}

// Scores that another op has made, as logits.
TEST_P(TopKOn, GivenScoresAreLeftAndChosenFrom) {
  for (const Size& s : kSizes) {
    const std::vector<double> scores = random_numbers(s.queries * s.rows, 9, 0.25);
    const Buffer<float> all(GetParam(), test::stored<float>(scores));
    const Buffer<float> score(GetParam(), s.queries * s.kept);
    const Buffer<std::int32_t> index(GetParam(), s.queries * s.kept);
    run(GetParam(), TopK<float>{.all = all.view(s.queries, s.rows),
                                .index = index.view(s.queries, s.kept),
                                .score = score.view(s.queries, s.kept)});
    EXPECT_EQ(test::as_double(all.read()), scores);
    const Indices got = index.read();
    const reference::Rows rows = rows_of(scores, s.rows);
    for (std::size_t n = 0; n < s.queries; ++n) {
      const auto want = reference::largest(rows[n], s.kept);
      for (std::size_t k = 0; k < want.size(); ++k) {
        ASSERT_EQ(got[n * s.kept + k], static_cast<std::int32_t>(want[k]))
            << "V = " << s.rows << ", query " << n << ", place " << k;
      }
    }
  }
}

TEST_P(TopKOn, NoQueriesAndNoRowsAreNoError) {
  EXPECT_TRUE(find<float>(GetParam(), {0, 3, 2, 4, {}, random_numbers(6, 1)}).index.empty());
  const Found none = find<float>(GetParam(), {2, 3, 0, 2, random_numbers(6, 1), {}});
  EXPECT_EQ(none.index, (Indices{-1, -1, -1, -1}));
  EXPECT_EQ(none.score, std::vector<float>(4, -kInfinity));
}

TEST(TopK, RefusesWrongArguments) {
  const Buffer<float> numbers(Cpu{}, 4096);
  const Buffer<std::int32_t> index(Cpu{}, 4096);
  const TopK<float> good{.query = numbers.view(2, 3),
                         .table = numbers.view(5, 3),
                         .excluded = index.view(2, 1),
                         .all = numbers.view(2, 5),
                         .index = index.view(2, 4),
                         .score = numbers.view(2, 4)};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](auto change) {
    TopK<float> bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([&](auto& op) { op.table = numbers.view(5, 2); });
  refused([&](auto& op) { op.query = {}; });
  refused([&](auto& op) { op.table = {}; });
  refused([&](auto& op) { op.excluded = index.view(3, 1); });
  refused([&](auto& op) { op.all = numbers.view(3, 5); });
  refused([&](auto& op) { op.all = numbers.view(2, 4); });
  refused([&](auto& op) { op.index = index.view(1, 4); });
  refused([&](auto& op) { op.score = numbers.view(1, 4); });
  refused([&](auto& op) { op.score = numbers.view(2, 3); });
  refused([&](auto& op) { op.index.extent[1] = op.score.extent[1] = 0; });
  refused([&](auto& op) { op.index.extent[1] = op.score.extent[1] = TopK<float>::kMost + 1; });
  refused([&](auto& op) { op.table.extent[0] = op.all.extent[1] = TopK<float>::kMaxRows + 1; });
}

}  // namespace
}  // namespace carousel
