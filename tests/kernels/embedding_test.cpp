#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/embedding.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;

struct Problem {
  std::size_t vocab = 0, width = 0;
  std::vector<std::int32_t> token;
  std::vector<double> weight, d_y;
  std::vector<double> before{};  ///< what the backward pass adds to; empty: it overwrites
};

template <class T>
struct Solution {
  std::vector<T> y;
  std::vector<Accumulator<T>> d_weight;
};

template <class T>
Solution<T> solve(const Device& device, const Problem& p) {
  const std::size_t tokens = p.token.size();
  const Buffer<T> weight(device, test::stored<T>(p.weight)), d_y(device, test::stored<T>(p.d_y));
  const Buffer<T> y(device, tokens * p.width);
  const Buffer<std::int32_t> token(device, p.token);
  const auto d_weight =
      p.before.empty() ? Buffer<Accumulator<T>>(device, p.vocab * p.width)
                       : Buffer<Accumulator<T>>(device, test::stored<Accumulator<T>>(p.before));
  run(device, EmbeddingForward<T>{.weight = weight.view(p.vocab, p.width),
                                  .token = token.view(tokens),
                                  .y = y.view(tokens, p.width)});
  EmbeddingBackward<T> backward{.d_y = d_y.view(tokens, p.width),
                                .token = token.view(tokens),
                                .d_weight = {d_weight.view(p.vocab, p.width), !p.before.empty()}};
  const auto scratch = test::give_scratch(device, backward);
  run(device, backward);
  return {y.read(), d_weight.read()};
}

/// The row-sparse gradient holds the dense one's rows of the distinct tokens, in order and bit for
/// bit, and nothing behind them is written.
template <class T>
void expect_rows_of_dense(const Device& device, Problem p) {
  p.before.clear();
  const auto dense = solve<T>(device, p).d_weight;
  std::vector<std::int32_t> want;
  for (const std::int32_t token : p.token) {
    if (token >= 0 && static_cast<std::size_t>(token) < p.vocab) want.push_back(token);
  }
  std::sort(want.begin(), want.end());
  want.erase(std::unique(want.begin(), want.end()), want.end());

  using A = Accumulator<T>;
  constexpr std::int32_t kUnwritten = -7;
  const std::size_t tokens = p.token.size();
  const Buffer<T> d_y(device, test::stored<T>(p.d_y));
  const Buffer<std::int32_t> token(device, p.token);
  const Buffer<std::int32_t> row(device, std::vector<std::int32_t>(tokens, kUnwritten));
  const Buffer<std::int32_t> row_count(device, std::size_t{1});
  const Buffer<A> d_row(device, std::vector<A>(tokens * p.width, A{kUnwritten}));
  EmbeddingRowBackward<T> op{.vocab = static_cast<std::int64_t>(p.vocab),
                             .d_y = d_y.view(tokens, p.width),
                             .token = token.view(tokens),
                             .row = row.view(tokens),
                             .row_count = row_count.view(1),
                             .d_row = d_row.view(tokens, p.width)};
  const auto scratch = test::give_scratch(device, op);
  run(device, op);

  ASSERT_EQ(row_count.read()[0], static_cast<std::int32_t>(want.size()));
  std::vector<A> values;
  for (const std::int32_t v : want) {
    const auto begin = dense.begin() + static_cast<std::ptrdiff_t>(v) * static_cast<int>(p.width);
    values.insert(values.end(), begin, begin + static_cast<std::ptrdiff_t>(p.width));
  }
  want.resize(tokens, kUnwritten);
  values.resize(tokens * p.width, A{kUnwritten});
  EXPECT_EQ(row.read(), want);
  EXPECT_EQ(d_row.read(), values);
}

std::vector<double> uniform(std::size_t count, std::mt19937_64& random) {
  std::vector<double> values(count);
  for (double& v : values) {
    v = std::ldexp(static_cast<double>(random() >> 11), -52) - 1;
    v = static_cast<double>(static_cast<float>(v));
  }
  return values;
}

/// How tokens are spread: evenly, all the same, as words are (rank r with probability ~ 1 / r), or
/// evenly with every fifth outside the vocabulary.
enum class Spread { even, same, zipf, outside };

Problem random_problem(std::size_t tokens, std::size_t vocab, std::size_t width, Spread spread,
                       std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Problem p{.vocab = vocab,
            .width = width,
            .token = std::vector<std::int32_t>(tokens),
            .weight = uniform(vocab * width, random),
            .d_y = uniform(tokens * width, random)};
  for (std::size_t n = 0; n < tokens; ++n) {
    std::size_t v = random() % vocab;
    if (spread == Spread::same) v = vocab - 1;
    if (spread == Spread::zipf) {
      const double u = std::ldexp(static_cast<double>(random() >> 11), -53);
      v = static_cast<std::size_t>(std::pow(static_cast<double>(vocab), u)) - 1;
    }
    p.token[n] = static_cast<std::int32_t>(v);
    if (spread == Spread::outside && n % 5 == 0) {
      p.token[n] = n % 2 == 0 ? static_cast<std::int32_t>(vocab) : -1 - static_cast<int>(v);
    }
  }
  return p;
}

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

// Leg 2: y is linear in the weight, so that central differences have no error but rounding.
TEST(Embedding, BackwardAgreesWithCentralDifferencesInDouble) {
  const Problem p = random_problem(70, 5, 3, Spread::zipf, 2);
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
      const Solution<T> got = solve<T>(device, p);
      const auto y = reference::embedding(p.weight, p.token, p.vocab, p.width);
      EXPECT_TRUE(test::close(got.y, y, Tolerance{})) << "seed " << seed;
      const auto before =
          p.before.empty() ? std::vector<double>(size.vocab * size.width, 0.0) : p.before;
      const auto d_weight = reference::embedding_backward(before, p.d_y, p.token, p.vocab);
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

// Leg 4: the contract on bad input.
TEST(Embedding, ATokenOutsideTheVocabularyGivesNaNAndNoGradient) {
  for (const Device& device : test::devices()) {
    for (const std::int32_t bad : {-1, 2, 1'000'000'000, INT32_MIN, INT32_MAX}) {
      const auto s = solve<float>(
          device, {.vocab = 2, .width = 1, .token = {1, bad}, .weight = {3, 4}, .d_y = {5, 6}});
      EXPECT_EQ(s.y[0], 4);
      EXPECT_TRUE(std::isnan(s.y[1]));
      EXPECT_EQ(s.d_weight, (std::vector<float>{0, 5}));
    }
  }
}

TEST(Embedding, RowsOfNothingAreNone) {
  for (const Device& device : test::devices()) {
    expect_rows_of_dense<float>(
        device, {.vocab = 3, .width = 0, .token = {2, 0, 2}, .weight = {}, .d_y = {}});
    expect_rows_of_dense<float>(
        device, {.vocab = 2, .width = 1, .token = {-1, 2}, .weight = {3, 4}, .d_y = {5, 6}});
    expect_rows_of_dense<float>(device,
                                {.vocab = 0, .width = 1, .token = {0}, .weight = {}, .d_y = {1}});
  }
}

// A vocabulary of 2 · 10⁹ needs no more memory than one of 10.
TEST(Embedding, RowsCostWhatTheTokensCost) {
  for (const Device& device : test::devices()) {
    const Buffer<float> d_y(device, std::vector<float>{1, 2, 4}), d_row(device, std::size_t{3});
    const Buffer<std::int32_t> token(device, std::vector<std::int32_t>{1'999'999'999, 5, 5});
    const Buffer<std::int32_t> row(device, std::size_t{3}), row_count(device, std::size_t{1});
    EmbeddingRowBackward<float> op{.vocab = 10,
                                   .d_y = d_y.view(3, 1),
                                   .token = token.view(3),
                                   .row = row.view(3),
                                   .row_count = row_count.view(1),
                                   .d_row = d_row.view(3, 1)};
    const std::size_t few = scratch_bytes(device, op);
    op.vocab = 2'000'000'000;
    EXPECT_EQ(scratch_bytes(device, op), few);
    const auto scratch = test::give_scratch(device, op);
    run(device, op);
    EXPECT_EQ(row_count.read()[0], 2);
    EXPECT_EQ(row.read()[0], 5);
    EXPECT_EQ(row.read()[1], 1'999'999'999);
    EXPECT_EQ(d_row.read()[0], 6.0F);
    EXPECT_EQ(d_row.read()[1], 1.0F);
  }
}

TEST(Embedding, AnEmptyVocabularyGivesNaN) {
  for (const Device& device : test::devices()) {
    const auto s = solve<float>(
        device, {.vocab = 0, .width = 2, .token = {0, 0}, .weight = {}, .d_y = {1, 1, 1, 1}});
    for (const float y : s.y) EXPECT_TRUE(std::isnan(y));
    EXPECT_TRUE(s.d_weight.empty());
  }
}

TEST(Embedding, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 12);
  const Buffer<std::int32_t> token(Cpu{}, 3);
  const auto forward = [&](std::int64_t rows, std::int64_t columns) {
    return EmbeddingForward<float>{
        .weight = numbers.view(3, 2), .token = token.view(3), .y = numbers.view(rows, columns)};
  };
  EXPECT_NO_THROW(forward(3, 2).check());
  EXPECT_THROW(forward(2, 2).check(), ShapeError);
  EXPECT_THROW(forward(3, 1).check(), ShapeError);

  const auto backward = [&](std::int64_t tokens, std::int64_t columns) {
    return EmbeddingBackward<float>{.d_y = numbers.view(3, 2),
                                    .token = token.view(tokens),
                                    .d_weight = {numbers.view(4, columns)}};
  };
  EXPECT_NO_THROW(backward(3, 2).check());
  EXPECT_THROW(backward(2, 2).check(), ShapeError);
  EXPECT_THROW(backward(3, 3).check(), ShapeError);
  const auto rows = [&](std::int64_t tokens, std::int64_t columns) {
    return EmbeddingRowBackward<float>{.vocab = 4,
                                       .d_y = numbers.view(3, 2),
                                       .token = token.view(3),
                                       .row = token.view(tokens),
                                       .row_count = token.view(1),
                                       .d_row = numbers.view(3, columns)};
  };
  EXPECT_NO_THROW(rows(3, 2).check());
  EXPECT_THROW(rows(2, 2).check(), ShapeError);
  EXPECT_THROW(rows(3, 3).check(), ShapeError);
  EmbeddingBackward<float> cramped = backward(3, 2);
  const auto scratch = test::give_scratch(Cpu{}, cramped);
  --cramped.scratch.extent[0];
  EXPECT_THROW(run(Cpu{}, cramped), ShapeError);
}

// Leg 5: invariants.
TEST(Embedding, EveryDeviceAndNumberOfThreadsGivesTheSameBits) {
  for (const Spread spread : {Spread::even, Spread::same, Spread::zipf}) {
    const Problem p = random_problem(20'000, 50, 3, spread, 7);
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
