#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <random>
#include <string_view>
#include <vector>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/reference/linear_cross_entropy.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel::test::linear_cross_entropy {

using Problem = reference::LinearCrossEntropy;
using Solution = reference::LinearCrossEntropyResult;

struct How {
  std::int64_t chunk_rows = 0, chunk_words = 0;
  std::string_view accumulate{};  ///< the gradients that hold kOld and are added to
  bool gradients = true;

  bool adds_to(std::string_view gradient) const {
    return accumulate.find(gradient) != accumulate.npos;
  }
};
inline constexpr double kOld = 0.25;

/// Both ways to cut the logits of a few rows and words, and both at once.
inline constexpr How kWays[] = {
    {}, {.chunk_rows = 2}, {.chunk_words = 4}, {.chunk_rows = 4, .chunk_words = 3}};

/// The op's arguments on a device, outputs and scratch included.
template <class T>
struct Arguments {
  using A = Accumulator<T>;
  Arguments(const Device& device, const Problem& p, const How& how)
      : hidden(device, stored<T>(p.hidden)),
        weight(device, stored<T>(p.weight)),
        bias(device, stored<A>(p.bias)),
        row_weight(device, stored<A>(p.row_weight)),
        denominator(device, std::vector<A>{static_cast<A>(p.denominator.value_or(0))}),
        target(device, p.target),
        loss(device, p.rows),
        mean(device, std::size_t{1}),
        count(device, std::size_t{1}),
        d_hidden(output<T>(device, p.rows * p.width, how.adds_to("d_hidden"))),
        d_weight(output<A>(device, p.vocab * p.width, how.adds_to("d_weight"))),
        d_bias(output<A>(device, p.vocab, how.adds_to("d_bias"))),
        op{.hidden = hidden.view(p.rows, p.width),
           .weight = weight.view(p.vocab, p.width),
           .target = target.view(p.rows),
           .label_smoothing = static_cast<float>(p.smoothing),
           .term_weight = static_cast<float>(p.term_weight),
           .loss = loss.view(p.rows),
           .mean_loss = mean.view(1),
           .count = count.view(1),
           .chunk_rows = how.chunk_rows,
           .chunk_words = how.chunk_words} {
    if (!p.bias.empty()) op.bias = bias.view(p.vocab);
    if (!p.row_weight.empty()) op.row_weight = row_weight.view(p.rows);
    if (p.denominator) op.denominator = denominator.view(1);
    if (how.gradients) {
      op.d_hidden = {d_hidden.view(p.rows, p.width), how.adds_to("d_hidden")};
      op.d_weight = {d_weight.view(p.vocab, p.width), how.adds_to("d_weight")};
      op.d_bias = {d_bias.view(p.vocab), how.adds_to("d_bias")};
    }
    scratch.emplace(test::give_scratch(device, op));
  }
  template <class X>
  static Buffer<X> output(const Device& device, std::size_t count, bool accumulate) {
    return accumulate ? Buffer<X>(device, std::vector<X>(count, X(kOld)))
                      : Buffer<X>(device, count);
  }
  Solution read() const {
    return {as_double(loss.read()),
            static_cast<double>(mean.read()[0]),
            count.read()[0],
            as_double(d_hidden.read()),
            as_double(d_weight.read()),
            as_double(d_bias.read()),
            0};
  }

  Buffer<T> hidden, weight;
  Buffer<A> bias, row_weight, denominator;
  Buffer<std::int32_t> target;
  Buffer<A> loss, mean;
  Buffer<std::int32_t> count;
  Buffer<T> d_hidden;
  Buffer<A> d_weight, d_bias;
  std::optional<Buffer<std::byte>> scratch;
  LinearCrossEntropy<T> op;
};

template <class T>
Solution solve(const Device& device, const Problem& p, const How& how = {}) {
  const Arguments<T> arguments(device, p, how);
  run(device, arguments.op);
  return arguments.read();
}

struct Size {
  std::size_t rows, width, vocab;
};

/// Weights of at most 8 / √H, so that logits reach about ±10; a fifth of the rows ignored.
template <class T>
Problem random_problem(Size size, unsigned seed, double smoothing = 0) {
  std::mt19937 random(seed);
  const auto draw = [&]<class U>(std::type_identity<U>, std::size_t count, double bound) {
    std::uniform_real_distribution<double> uniform(-bound, bound);
    std::vector<double> values(count);
    for (double& v : values) v = static_cast<double>(static_cast<U>(uniform(random)));
    return values;
  };
  constexpr std::type_identity<T> kStored{};
  const double bound = 8 / std::sqrt(static_cast<double>(std::max<std::size_t>(size.width, 1)));
  Problem p;
  p.rows = size.rows, p.width = size.width, p.vocab = size.vocab;
  p.hidden = draw(kStored, size.rows * size.width, 1);
  p.weight = draw(kStored, size.vocab * size.width, bound);
  p.bias = draw(std::type_identity<Accumulator<T>>{}, size.vocab, 1);
  p.smoothing = static_cast<double>(static_cast<float>(smoothing));
  for (std::size_t n = 0; n < size.rows; ++n) {
    const auto word = static_cast<std::int32_t>(random() % size.vocab);
    p.target.push_back(random() % 5 == 0 ? kIgnoreTarget : word);
  }
  return p;
}

/// Row weights in [−1, 1], every seventh 0, with a denominator and a weight of the term.
inline Problem weighted(Problem p, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (std::size_t n = 0; n < p.rows; ++n) {
    p.row_weight.push_back(static_cast<double>(n % 7 == 6 ? 0 : uniform(random)));
  }
  p.denominator = static_cast<double>(p.rows) + 0.5;
  p.term_weight = 0.75;
  return p;
}

/// The largest excess of a solution, losses and gradients apart. Gradients are compared times the
/// denominator, as the contract says: those of the summed loss, whose size does not depend on N.
struct Excess {
  double loss = 0, gradient = 0;
};
template <class T>
Excess excess(const Solution& got, const Solution& want) {
  const Tolerance& forward = of<T>(kLinearCrossEntropyTolerance);
  const Tolerance& backward = of<T>(kLinearCrossEntropyGradientTolerance);
  const auto sum_of = [&](std::vector<double> d) {
    for (double& x : d) x *= want.denominator == 0 ? 1 : want.denominator;
    return d;
  };
  const auto gradient = [&](const std::vector<double>& g, const std::vector<double>& w) {
    return test::worst_excess(sum_of(g), sum_of(w), backward);
  };
  EXPECT_EQ(got.count, want.count);
  return {std::max(test::worst_excess(got.loss, want.loss, forward),
                   test::worst_excess(std::vector{got.mean}, std::vector{want.mean}, forward)),
          std::max({gradient(got.d_hidden, want.d_hidden), gradient(got.d_weight, want.d_weight),
                    gradient(got.d_bias, want.d_bias)})};
}

template <class T>
void expect_near(const Solution& got, const Solution& want) {
  const Excess e = excess<T>(got, want);
  EXPECT_LE(e.loss, 1);
  EXPECT_LE(e.gradient, 1);
}

inline bool all_nan(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isnan(x); });
}

}  // namespace carousel::test::linear_cross_entropy
