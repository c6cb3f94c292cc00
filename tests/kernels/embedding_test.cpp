#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/embedding_problem.h"
#include "tests/reference/embedding.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using test::embedding::expect_rows_of_dense;
using test::embedding::Problem;
using test::embedding::random_problem;
using test::embedding::Solution;
using test::embedding::solve;
using test::embedding::Spread;
using test::embedding::uniform;
using test::embedding::weighted;

// Leg 1: worked by hand.
TEST(Embedding, LooksUpRowsAndSumsTheirGradients) {
  for (const Device& device : test::devices()) {
    const auto s = solve<float>(device, {.vocab = 3,
                                         .width = 2,
                                         .token = {2, 0, 2},
                                         .weight = {1, 2, 3, 4, 5, 6},
                                         .d_y = {1, 10, 2, 20, 4, 40}});
    EXPECT_EQ(s.y, (std::vector<float>{5, 6, 1, 2, 5, 6}));
    EXPECT_EQ(s.d_weight, (std::vector<float>{2, 20, 0, 0, 5, 50}));
  }
}

// A word is dropped in all its places or in none, and its gradient with it.
TEST(Embedding, DropsWholeRowsAndScalesTheOthers) {
  for (const Device& device : test::devices()) {
    const std::size_t vocab = 64;
    Problem p{.vocab = vocab,
              .width = 3,
              .weight = std::vector<double>(vocab * 3, 5.0),
              .drop_probability = 0.5F,
              .draw = {3, 4, 5}};
    for (std::size_t n = 0; n < 2 * vocab; ++n) {
      p.token.push_back(static_cast<std::int32_t>(n % vocab));
    }
    p.d_y = std::vector<double>(2 * vocab * 3, 1.0);
    const auto s = solve<float>(device, p);
    EXPECT_NEAR(static_cast<double>(std::count(s.y.begin(), s.y.end(), 10.0F)), 192, 60);
    for (std::size_t i = 0; i < s.y.size(); ++i) {
      EXPECT_TRUE(s.y[i] == 0 || s.y[i] == 10);
      EXPECT_EQ(s.y[i], s.y[i % (vocab * 3)]);
      EXPECT_EQ(s.y[i], s.y[i / 3 * 3]) << "rows are whole";
      EXPECT_EQ(s.d_weight[i % (vocab * 3)], s.y[i] == 0 ? 0 : 4);
    }
    p.draw.step = 6;
    EXPECT_NE(solve<float>(device, p).y, s.y);
  }
}

// Leg 2: y is linear in the weight, so that central differences have no error but rounding.
TEST(Embedding, BackwardAgreesWithCentralDifferencesInDouble) {
  Problem p = random_problem(70, 5, 3, Spread::zipf, 2);
  p.drop_probability = 0.4F;
  const auto loss = [&](const std::vector<double>& weight) {  // Σ d_y·y
    Problem moved = p;
    moved.weight = weight;
    const auto y = solve<double>(Cpu{}, moved).y;
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += p.d_y[i] * y[i];
    return sum;
  };
  const auto d_weight = solve<double>(Cpu{}, p).d_weight;
  for (std::size_t i = 0; i < p.weight.size(); ++i) {
    auto up = p.weight, down = p.weight;
    up[i] += 0.5;
    down[i] -= 0.5;
    EXPECT_NEAR(d_weight[i], loss(up) - loss(down), 1e-12) << "weight[" << i << "]";
  }
}

struct Size {
  std::size_t tokens, vocab, width;
};
// None, one, around a tile, around a batch of rows, several tiles (also longer ones: beyond 2¹⁴
// tokens they are of 64), and one layer of a small model.
const std::vector<Size> kSizes{{0, 3, 5},      {1, 1, 1},    {7, 2, 4},      {31, 4, 8},
                               {32, 1, 33},    {33, 40, 7},  {65, 3, 128},   {257, 200, 9},
                               {1000, 17, 31}, {40, 999, 6}, {128, 65, 520}, {17'000, 30, 2}};

/// Largest excess of the backward pass over the sweep; the forward pass must be exact.
template <class T>
double sweep_excess(const Device& device, const Tolerance& tolerance) {
  double worst = 0;
  std::uint64_t seed = 100;
  for (const Size& size : kSizes) {
    for (const Spread spread : {Spread::even, Spread::same, Spread::zipf, Spread::outside}) {
      Problem p = random_problem(size.tokens, size.vocab, size.width, spread, ++seed);
      p.weight = test::as_double(test::stored<T>(p.weight));
      p.d_y = test::as_double(test::stored<T>(p.d_y));
      if (seed % 2 == 0) {
        std::mt19937_64 random(seed);
        p.before = uniform(size.vocab * size.width, random);
      }
      if (seed % 3 == 0) {
        p.drop_probability = seed % 4 == 0 ? 0.6F : 0.1F;
        p.draw = {seed, 3, static_cast<std::int64_t>(seed) << 30};
      }
      const Solution<T> got = solve<T>(device, p);
      const auto y = test::stored<T>(reference::embedding(p.weight, p.token, p.factor(), p.width));
      EXPECT_TRUE(test::close(got.y, test::as_double(y), Tolerance{})) << "seed " << seed;
      const auto before =
          p.before.empty() ? std::vector<double>(size.vocab * size.width, 0.0) : p.before;
      const auto d_weight = reference::embedding_backward(before, p.d_y, p.token, p.factor());
      EXPECT_TRUE(test::close(got.d_weight, d_weight, tolerance)) << "seed " << seed;
      worst = std::max(worst, test::worst_excess(got.d_weight, d_weight, tolerance));
      expect_rows_of_dense<T>(device, p);
    }
  }
  return worst;
}

// Leg 3: every device, type and size against the oracle.
template <class T>
void sweep(const Tolerance& tolerance) {
  double worst = 0;
  for (const Device& device : test::devices()) {
    worst = std::max(worst, sweep_excess<T>(device, tolerance));
  }
  test::expect_recorded(worst, tolerance);
}

TEST(Embedding, SweepStaysWithinItsTolerance) {
  sweep<float>(kEmbeddingTolerance.f32);
  sweep<bf16>(kEmbeddingTolerance.bf16);
}

// Tokens that share a row of d_y, each with a coefficient: worked by hand, then against the oracle.
TEST(Embedding, SumsSharedRowsByTheirCoefficients) {
  for (const Device& device : test::devices()) {
    const auto s = solve<float>(device, {.vocab = 3,
                                         .width = 2,
                                         .token = {2, 0, kNoToken, 2},
                                         .weight = {1, 2, 3, 4, 5, 6},
                                         .d_y = {1, 10, 2, 20},
                                         .coefficient = {0.5, 3, 9, 2}});
    EXPECT_EQ(s.d_weight, (std::vector<float>{3, 30, 0, 0, 4.5, 45}));
  }
}

TEST(Embedding, SharedRowsStayWithinTheTolerance) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const Size& size : kSizes) {
      for (const std::size_t sharing : {1U, 3U, 10U}) {
        Problem p = weighted(
            random_problem(size.tokens, size.vocab, size.width, Spread::outside, sharing), sharing);
        p.d_y = test::as_double(test::stored<T>(p.d_y));
        const std::vector<double> none(size.vocab * size.width, 0.0);
        const auto want =
            reference::embedding_backward(none, p.d_y, p.token, p.factor(), p.coefficient);
        EXPECT_TRUE(test::close(solve<T>(device, p).d_weight, want, kEmbeddingTolerance.f32));
        expect_rows_of_dense<T>(device, p);
        if constexpr (sizeof(T) == 4) {
          EXPECT_EQ(solve<T>(device, p).d_weight, solve<T>(Cpu{}, p).d_weight);
        }
      }
    }
  });
}

// Leg 5: invariants.
TEST(Embedding, EveryDeviceAndNumberOfThreadsGivesTheSameBits) {
  for (const Spread spread : {Spread::even, Spread::same, Spread::zipf}) {
    Problem p = random_problem(20'000, 50, 3, spread, 7);
    p.drop_probability = 0.3F;
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const auto want = solve<float>(Cpu{}, p).d_weight;
    omp_set_num_threads(3);
    EXPECT_EQ(solve<float>(Cpu{}, p).d_weight, want);
    omp_set_num_threads(threads);
    for (const Device& device : test::devices()) {
      EXPECT_EQ(solve<float>(device, p).d_weight, want) << test::device_name(device);
    }
  }
}

TEST(Embedding, ColumnsOfTheGradientSumToTheColumnsOfDY) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem(3000, 1'000'000 / 64, 2, Spread::zipf, 9);
    for (double& v : p.d_y) v = std::round(4 * v);  // integers, whose sums are exact in any order
    const auto d_weight = solve<float>(device, p).d_weight;
    for (std::size_t e = 0; e < 2; ++e) {
      double got = 0, want = 0;
      for (std::size_t v = 0; v < p.vocab; ++v) got += static_cast<double>(d_weight[2 * v + e]);
      for (std::size_t n = 0; n < p.token.size(); ++n) want += p.d_y[2 * n + e];
      EXPECT_EQ(got, want);
    }
  }
}

TEST(Embedding, TilesKeepTheLongestChainOfAdditionsShort) {
  for (std::int64_t tokens : {0, 1, 16'384, 16'385, 100'000, 1'000'000, 1 << 30}) {
    const std::int64_t tile = embedding_tile(tokens);
    EXPECT_TRUE(tile >= 32 && tile <= 1024 && (tile & (tile - 1)) == 0);
    if (tokens <= 1'000'000) {
      EXPECT_LE(tokens / tile, 16 * tile);
    }
  }
}

}  // namespace
}  // namespace carousel
