#include "engine/tape/initializer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/common/check.h"

namespace carousel {
namespace {

using Kind = Initializer::Kind;

double mean(const std::vector<float>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}
double mean_square(const std::vector<float>& v) {
  return std::inner_product(v.begin(), v.end(), v.begin(), 0.0) / static_cast<double>(v.size());
}

// Of matrices [400, 50] of four gates.
TEST(Initializer, RandomKindsHaveTheVarianceAndShapeOfTheirFans) {
  struct Case {
    const char* name;
    Initializer init;
    double variance;
    bool normal;
  };
  const Case cases[] = {
      {"uniform", {.kind = Kind::uniform, .scale = 0.1}, 0.01 / 3, false},
      {"normal", {.kind = Kind::normal, .scale = 2}, 4, true},
      {"xavier", {.kind = Kind::xavier, .scale = 1, .blocks = 4}, 2.0 / (100 + 50), false},
      {"xavier of one block", {.kind = Kind::xavier, .scale = 3}, 9 * 2.0 / (400 + 50), false},
      {"kaiming", {.kind = Kind::kaiming, .scale = 1, .blocks = 4}, 2.0 / 50, true},
      {"fan_in", {.kind = Kind::fan_in, .scale = 1}, 1.0 / 50 / 3, false},
      {"PyTorch's RNN", pytorch_recurrent(100), 0.01 / 3, false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const auto v = initial_values(c.init, {400, 50}, 1, 2);
    EXPECT_NEAR(mean(v), 0, std::sqrt(c.variance / 20000) * 4);
    EXPECT_NEAR(mean_square(v), c.variance, c.variance * 0.04);
    const auto beyond = [&](double deviations) {
      const double bound = deviations * std::sqrt(c.variance);
      return static_cast<double>(
                 std::count_if(v.begin(), v.end(),
                               [&](float x) { return std::abs(static_cast<double>(x)) > bound; })) /
             20000;
    };
    EXPECT_NEAR(beyond(1), c.normal ? 0.3173 : 1 - 1 / std::sqrt(3.0), 0.015);
    EXPECT_NEAR(beyond(2), c.normal ? 0.0455 : 0, 0.006);
  }
}

TEST(Initializer, IdentityIsTheScaledIdentityOfEveryBlock) {
  const auto v = initial_values({.kind = Kind::identity, .scale = 0.5, .blocks = 2}, {4, 3}, 1, 1);
  EXPECT_EQ(v, (std::vector<float>{0.5F, 0, 0, 0, 0.5F, 0, 0.5F, 0, 0, 0, 0.5F, 0}));
}

/// By the power method, with as many steps as an eigenvalue close to the largest may need.
double largest_eigenvalue(std::span<const float> matrix, std::size_t n) {
  std::vector<double> x(n, 1.0), y(n);
  double norm = 0;
  for (int step = 0; step < 2000; ++step) {
    for (std::size_t i = 0; i < n; ++i) {
      y[i] = std::inner_product(x.begin(), x.end(), &matrix[i * n], 0.0);
    }
    norm = std::sqrt(std::inner_product(y.begin(), y.end(), y.begin(), 0.0));
    if (norm == 0) break;
    for (std::size_t i = 0; i < n; ++i) x[i] = y[i] / norm;
  }
  return norm;
}

TEST(Initializer, TheLargestEigenvalueIsOneInEveryBlockAndNoneIsBelowZero) {
  for (const std::size_t n : {1, 2, 7, 40, 300}) {
    const auto rows = static_cast<std::int64_t>(n);
    const auto v = initial_values({.kind = Kind::unit_eigenvalue, .scale = 1, .blocks = 2},
                                  {2 * rows, rows}, 1, 8);
    for (std::size_t block = 0; block < 2; ++block) {
      std::vector<float> m(v.begin() + static_cast<std::ptrdiff_t>(block * n * n),
                           v.begin() + static_cast<std::ptrdiff_t>((block + 1) * n * n));
      EXPECT_NEAR(largest_eigenvalue(m, n), 1, 2e-6) << n;
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < i; ++j) EXPECT_EQ(m[i * n + j], m[j * n + i]);
      }
      if (n > 40) continue;
      // I − M has eigenvalues from 0 to below 1, as M has from above 0 to 1.
      for (std::size_t i = 0; i < n * n; ++i) m[i] = (i % (n + 1) == 0 ? 1.0F : 0.0F) - m[i];
      EXPECT_LT(largest_eigenvalue(m, n), n == 1 ? 1e-6 : 0.9999) << n;
    }
  }
  EXPECT_THROW(initial_values({.kind = Kind::unit_eigenvalue, .scale = 1}, {3, 2}, 1, 1),
               ShapeError);
}

// Delays uniform from 1 to T − 1 steps, T = 100: a gate's time constant is e^b.
TEST(Initializer, ChronoGivesTheForgetGateEveryDelayAndTheInputGateItsOpposite) {
  constexpr std::int64_t kWidth = 5000;
  const Initializer lstm{.kind = Kind::chrono,
                         .scale = 100,
                         .blocks = 4,
                         .offset_first = kWidth,
                         .offset_count = kWidth,
                         .mirror_first = 0};
  const auto v = initial_values(lstm, {4 * kWidth}, 1, 9);
  std::vector<float> delay;
  for (std::size_t i = 0; i < kWidth; ++i) {
    delay.push_back(std::exp(v[kWidth + i]));
    EXPECT_TRUE(delay[i] > 0.9999F && delay[i] < 99.01F);
    EXPECT_EQ(v[i], -v[kWidth + i]);
    EXPECT_EQ(v[2 * kWidth + i], 0);
    EXPECT_EQ(v[3 * kWidth + i], 0);
  }
  EXPECT_NEAR(mean(delay), 50, 1.6);
  EXPECT_NEAR(mean_square(delay) - 2500, 98.0 * 98 / 12, 120);
  const Initializer gru{
      .kind = Kind::chrono, .scale = 100, .blocks = 3, .offset_first = 2, .offset_count = 2};
  const auto u = initial_values(gru, {6}, 1, 9);
  EXPECT_EQ((std::vector<float>{u[0], u[1], u[4], u[5]}), std::vector<float>(4));
  EXPECT_GT(u[2], 0);
  EXPECT_THROW(initial_values({.kind = Kind::chrono, .scale = 2}, {4}, 1, 1), ConfigError);
}

TEST(Initializer, NamesAreDistinctAndGiveFiniteMatricesThatTheSeedDecides) {
  std::set<std::string_view> names;
  for (const NamedInitializer& named : matrix_initializers()) {
    SCOPED_TRACE(named.name);
    EXPECT_TRUE(names.insert(named.name).second);
    const Initializer init{.kind = named.kind, .scale = 1, .blocks = 4};
    const auto values = initial_values(init, {24, 6}, 1, 2);
    EXPECT_TRUE(
        std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }));
    EXPECT_EQ(values, initial_values(init, {24, 6}, 1, 2));
    EXPECT_EQ(values == initial_values(init, {24, 6}, 2, 2), named.kind == Kind::identity);
    if (named.square) {
      EXPECT_THROW(initial_values(init, {24, 5}, 1, 2), ShapeError);
    } else {
      EXPECT_NO_THROW(initial_values(init, {24, 5}, 1, 2));
    }
  }
}

TEST(Initializer, OrthogonalBlocksAreOrthonormal) {
  for (const auto& [rows, columns] : {std::pair{24, 6}, std::pair{8, 8}, std::pair{8, 10}}) {
    const auto v =
        initial_values({.kind = Kind::orthogonal, .scale = 1, .blocks = 4}, {rows, columns}, 1, 5);
    const int r = rows / 4, c = columns, n = std::min(r, c);
    for (int block = 0; block < 4; ++block) {
      const float* m = v.data() + block * r * c;
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) {
          double dot = 0;
          for (int k = 0; k < std::max(r, c); ++k) {
            dot +=
                r <= c ? double{m[i * c + k]} * m[j * c + k] : double{m[k * c + i]} * m[k * c + j];
          }
          EXPECT_NEAR(dot, i == j, 1e-6);
        }
      }
    }
  }
}

TEST(Initializer, TheForgetGatesBiasIsOffset) {
  const auto v = initial_values(
      {.kind = Kind::constant, .scale = 0, .offset = 1, .offset_first = 3, .offset_count = 3}, {12},
      1, 6);
  EXPECT_EQ(v, (std::vector<float>{0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0}));
}

TEST(Initializer, SeedAndStreamDecide) {
  const Initializer init{.kind = Kind::uniform, .scale = 1};
  EXPECT_EQ(initial_values(init, {9}, 1, 2), initial_values(init, {9}, 1, 2));
  EXPECT_NE(initial_values(init, {9}, 1, 2), initial_values(init, {9}, 1, 3));
  EXPECT_NE(initial_values(init, {9}, 1, 2), initial_values(init, {9}, 2, 2));
}

TEST(Initializer, BlocksMustDivideTheRows) {
  EXPECT_THROW(initial_values({.kind = Kind::xavier, .scale = 1, .blocks = 4}, {6, 2}, 1, 1),
               ShapeError);
  EXPECT_TRUE(initial_values({.kind = Kind::orthogonal, .scale = 1}, {0, 5}, 1, 1).empty());
}

}  // namespace
}  // namespace carousel
