#include "kernels/embedding_mean/embedding_mean.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/embedding.h"
#include "tests/reference/embedding_mean.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using Ids = std::vector<std::int32_t>;

struct Problem {
  std::size_t rows = 0, places = 0, width = 0;
  Ids token;
  std::vector<double> weight;
};

template <class T>
struct Solution {
  std::vector<T> y;
  std::vector<Accumulator<T>> share;
};

template <class T>
Solution<T> solve(const Device& device, const Problem& p) {
  const std::size_t N = p.rows, K = p.places, E = p.width;
  const Buffer<std::int32_t> token(device, p.token);
  const Buffer<T> weight(device, test::stored<T>(p.weight)), y(device, N * E);
  const Buffer<Accumulator<T>> share(device, N * K);
  run(device, EmbeddingMean<T>{.weight = weight.view(E == 0 ? 3 : p.weight.size() / E, E),
                               .token = token.view(N, K),
                               .y = y.view(N, E),
                               .share = share.view(N, K)});
  return {y.read(), share.read()};
}

/// Contexts with any number of tokens, none too.
Problem random_problem(std::size_t rows, std::size_t places, std::size_t width, unsigned seed) {
  constexpr std::size_t kVocab = 19;
  std::mt19937 random(seed);
  Problem p{.rows = rows, .places = places, .width = width, .token = {}, .weight = {}};
  for (std::size_t n = 0; n < rows; ++n) {
    const auto present = random() % 4;  // in 3
    for (std::size_t k = 0; k < places; ++k) {
      const bool is_there = random() % 3 < present;
      p.token.push_back(is_there ? static_cast<std::int32_t>(random() % kVocab) : kNoToken);
    }
  }
  for (std::size_t i = 0; i < kVocab * width; ++i) {
    p.weight.push_back(static_cast<double>(static_cast<float>(random()) * 0x1p-31F - 1));
  }
  return p;
}

// Leg 1: worked by hand.
TEST(EmbeddingMean, AveragesTheTokensThatAreThere) {
  for (const Device& device : test::devices()) {
    const auto s =
        solve<float>(device, {.rows = 3,
                              .places = 3,
                              .width = 2,
                              .token = {0, kNoToken, 2, kNoToken, kNoToken, kNoToken, 1, 1, 1},
                              .weight = {1, 2, 3, 4, 5, 6}});
    EXPECT_EQ(s.y, (std::vector<float>{3, 4, 0, 0, 3, 4}));
    const float third = 1.0F / 3;
    EXPECT_EQ(s.share, (std::vector<float>{0.5, 0, 0.5, 0, 0, 0, third, third, third}));
  }
}

// Leg 2: y is linear in the weight; its gradient is a lookup's with the shares as coefficients.
TEST(EmbeddingMean, BackwardAgreesWithCentralDifferencesInDouble) {
  const Problem p = random_problem(11, 4, 3, 5);
  std::vector<double> d_y(p.rows * p.width);
  for (std::size_t i = 0; i < d_y.size(); ++i) d_y[i] = static_cast<double>(i % 7) - 3;
  const auto loss = [&](std::size_t at, double by) {
    Problem moved = p;
    moved.weight[at] += by;
    const auto y = solve<double>(Cpu{}, moved).y;
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += d_y[i] * y[i];
    return sum;
  };
  const std::size_t vocab = p.weight.size() / p.width;
  const auto d_weight =
      reference::embedding_backward(std::vector<double>(p.weight.size(), 0.0), d_y, p.token,
                                    std::vector<double>(vocab, 1.0), solve<double>(Cpu{}, p).share);
  for (std::size_t i = 0; i < p.weight.size(); ++i) {
    EXPECT_NEAR(d_weight[i], loss(i, 0.5) - loss(i, -0.5), 1e-12) << i;
  }
}

struct Size {
  std::size_t rows, places, width;
};
const std::vector<Size> kSizes{{0, 3, 4},    {1, 1, 1},     {5, 10, 100}, {33, 2, 31},
                               {40, 64, 33}, {9, 20, 129},  {3, 7, 1030}, {2, 3, 0},
                               {7, 0, 5},    {600, 10, 100}};

// Leg 3: every device and type against the oracle.
template <class T>
void sweep() {
  const Tolerance& tolerance = test::of<T>(kEmbeddingMeanTolerance);
  double worst = 0;
  unsigned seed = 20;
  for (const auto& [rows, places, width] : kSizes) {
    Problem p = random_problem(rows, places, width, ++seed);
    p.weight = test::as_double(test::stored<T>(p.weight));
    std::vector<double> want;
    for (std::size_t n = 0; n < rows; ++n) {
      const auto first = p.token.begin() + static_cast<std::ptrdiff_t>(n * places);
      const auto mean = reference::embedding_mean(
          p.weight, width, Ids(first, first + static_cast<std::ptrdiff_t>(places)));
      want.insert(want.end(), mean.begin(), mean.end());
    }
    for (const Device& device : test::devices()) {
      const auto got = solve<T>(device, p);
      EXPECT_TRUE(test::close(got.y, want, tolerance)) << test::device_name(device);
      EXPECT_EQ(got.share, solve<T>(Cpu{}, p).share);
      worst = std::max(worst, test::worst_excess(got.y, want, tolerance));
    }
  }
  test::expect_recorded(worst, tolerance);
}
TEST(EmbeddingMean, SweepStaysWithinItsTolerance) { sweep<float>(); }
TEST(EmbeddingMean, SweepOfBf16StaysWithinItsTolerance) { sweep<bf16>(); }

// Leg 4: the contract on bad input.
TEST(EmbeddingMean, ATokenOutsideTheVocabularyGivesNaN) {
  for (const Device& device : test::devices()) {
    for (const std::int32_t bad : {-1, 3, INT32_MAX, kNoToken + 1}) {
      const auto s = solve<float>(device, {.rows = 2,
                                           .places = 2,
                                           .width = 2,
                                           .token = {bad, 1, 2, kNoToken},
                                           .weight = {1, 2, 3, 4, 5, 6}});
      EXPECT_TRUE(std::isnan(s.y[0]) && std::isnan(s.y[1]));
      EXPECT_EQ(s.y[2], 5);
      EXPECT_EQ(s.share, (std::vector<float>{0.5, 0.5, 1, 0}));
    }
  }
}

TEST(EmbeddingMean, RefusesWhatItsContractRefuses) {
  std::vector<float> numbers(60);
  Ids ids(60);
  float* const f = numbers.data();
  const EmbeddingMean<float> good{
      .weight = {f, {5, 4}}, .token = {ids.data(), {3, 2}}, .y = {f, {3, 4}}, .share = {f, {3, 2}}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    auto bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.y.extent = {2, 4}; });
  refused([](auto& op) { op.y.extent = {3, 5}; });
  refused([](auto& op) { op.share.extent = {2, 2}; });
  refused([](auto& op) { op.share.extent = {3, 3}; });
}

// Leg 5: invariants.
TEST(EmbeddingMean, AnyNumberOfThreadsGivesTheSameBits) {
  const Problem p = random_problem(900, 10, 40, 3);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto want = solve<float>(Cpu{}, p).y;
  omp_set_num_threads(3);
  EXPECT_EQ(solve<float>(Cpu{}, p).y, want);
  omp_set_num_threads(threads);
}

TEST(EmbeddingMean, OneTokenIsItsRow) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem(30, 4, 37, 8);
    for (std::size_t i = 0; i < p.token.size(); ++i) {
      p.token[i] = i % 4 == i / 4 % 4 ? static_cast<std::int32_t>(i % 19) : kNoToken;
    }
    const auto y = solve<float>(device, p).y;
    for (std::size_t n = 0; n < 30; ++n) {
      const std::size_t id = (4 * n + n % 4) % 19;
      for (std::size_t e = 0; e < 37; ++e) {
        EXPECT_EQ(y[n * 37 + e], static_cast<float>(p.weight[id * 37 + e]));
      }
    }
  }
}

}  // namespace
}  // namespace carousel
