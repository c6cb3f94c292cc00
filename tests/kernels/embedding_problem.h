#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/embedding/embedding.h"
#include "tests/reference/dropout.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel::test::embedding {

struct Problem {
  std::size_t vocab = 0, width = 0;
  std::vector<std::int32_t> token{};
  std::vector<double> weight{}, d_y{};
  std::vector<double> before{};       ///< what the backward pass adds to; empty: it overwrites
  std::vector<double> coefficient{};  ///< of the backward pass; empty: 1 each
  float drop_probability = 0;
  reference::Draw draw{};

  /// So many tokens share a row of d_y.
  std::size_t sharing() const { return d_y.empty() ? 1 : token.size() * width / d_y.size(); }
  /// What each row is multiplied by.
  std::vector<double> factor() const {
    std::vector<double> result(vocab, 1.0);
    if (drop_probability == 0) return result;
    return reference::dropout(result, draw, static_cast<double>(drop_probability), vocab);
  }
};

/// The coefficients of a problem, on the device.
template <class A>
struct Coefficient {
  Buffer<A> values;
  View<const A, 1> op{};
  Coefficient(const Device& device, const Problem& p)
      : values(device, test::stored<A>(p.coefficient)) {
    if (!p.coefficient.empty()) op = values.view(p.coefficient.size());
  }
};

/// The dropout of a problem, with its step on the device.
struct Dropout {
  Buffer<std::int64_t> step;
  RowDropout op;
  Dropout(const Device& device, const Problem& p)
      : step(device, std::vector<std::int64_t>{p.draw.step}),
        op{.drop_probability = p.drop_probability,
           .source = {.seed = p.draw.seed, .stream = p.draw.stream, .step = step.view(1)}} {}
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
  const Dropout dropout(device, p);
  run(device, EmbeddingForward<T>{.weight = weight.view(p.vocab, p.width),
                                  .token = token.view(tokens),
                                  .y = y.view(tokens, p.width),
                                  .dropout = dropout.op});
  const Coefficient<Accumulator<T>> coefficient(device, p);
  EmbeddingBackward<T> backward{.d_y = d_y.view(tokens / p.sharing(), p.width),
                                .token = token.view(tokens),
                                .coefficient = coefficient.op,
                                .d_weight = {d_weight.view(p.vocab, p.width), !p.before.empty()},
                                .dropout = dropout.op};
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
  const Dropout dropout(device, p);
  const Coefficient<A> coefficient(device, p);
  EmbeddingRowBackward<T> op{.vocab = static_cast<std::int64_t>(p.vocab),
                             .d_y = d_y.view(tokens / p.sharing(), p.width),
                             .token = token.view(tokens),
                             .coefficient = coefficient.op,
                             .row = row.view(tokens),
                             .row_count = row_count.view(1),
                             .d_row = d_row.view(tokens, p.width),
                             .dropout = dropout.op};
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

inline std::vector<double> uniform(std::size_t count, std::mt19937_64& random) {
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

/// Gives a problem coefficients, and rows of d_y that `sharing` tokens share.
inline Problem weighted(Problem p, std::size_t sharing) {
  std::mt19937_64 random(p.token.size());
  p.token.resize(p.token.size() / sharing * sharing);
  p.d_y.resize(p.token.size() / sharing * p.width);
  p.coefficient = uniform(p.token.size(), random);
  return p;
}

inline Problem random_problem(std::size_t tokens, std::size_t vocab, std::size_t width,
                              Spread spread, std::uint64_t seed) {
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

}  // namespace carousel::test::embedding
