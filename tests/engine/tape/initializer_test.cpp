#include "engine/tape/initializer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

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

TEST(Initializer, UniformFillsItsRangeEvenly) {
  const auto v = initial_values({.kind = Kind::uniform, .scale = 0.1}, {400, 50}, 1, 2);
  EXPECT_NEAR(mean(v), 0, 0.1 / std::sqrt(3.0 * 20000) * 4);
  EXPECT_NEAR(mean_square(v), 0.01 / 3, 0.01 / 3 * 0.03);
  for (const float x : v) EXPECT_LE(std::abs(x), 0.1F);
}

TEST(Initializer, NormalHasItsVarianceAndItsTails) {
  const auto v = initial_values({.kind = Kind::normal, .scale = 2}, {100000}, 1, 3);
  EXPECT_NEAR(mean(v), 0, 0.03);
  EXPECT_NEAR(mean_square(v), 4, 0.08);
  const auto beyond = std::count_if(v.begin(), v.end(), [](float x) { return std::abs(x) > 4; });
  EXPECT_NEAR(static_cast<double>(beyond) / 1e5, 0.0455, 0.003);  // two standard deviations
}

TEST(Initializer, XavierUsesTheFansOfOneGate) {
  const auto v = initial_values({.kind = Kind::xavier, .scale = 1, .blocks = 4}, {400, 50}, 1, 4);
  const double a = std::sqrt(6.0 / (100 + 50));
  EXPECT_NEAR(mean_square(v), a * a / 3, a * a / 3 * 0.03);
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
