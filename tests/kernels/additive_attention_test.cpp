#include "kernels/additive_attention/additive_attention.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/additive_attention.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using Numbers = std::vector<double>;

struct Problem {
  std::size_t queries = 0, keys = 0, batch = 1, width = 1, columns = 1;
  Numbers q{}, k{}, v{}, score{}, d_y{};
  std::vector<std::int32_t> length{};  ///< empty: absent
  bool accumulate = false;
  Numbers before_q{}, before_k{}, before_v{}, before_score{};  ///< what is added to

  std::size_t own_keys(std::size_t b) const {
    if (length.empty()) return keys;
    return std::min(keys, static_cast<std::size_t>(std::max(0, length[b])));
  }
};

struct Solution {
  Numbers y{}, weights{}, d_q{}, d_k{}, d_v{}, d_score{};
};

template <class T>
Buffer<T> target(const Device& device, const Numbers& before, std::size_t size) {
  return before.empty() ? Buffer<T>(device, size) : Buffer<T>(device, test::stored<T>(before));
}

template <class T>
Solution solve(const Device& device, const Problem& p) {
  using Acc = Accumulator<T>;
  const auto& [T_, S, B, H, D] = std::array{p.queries, p.keys, p.batch, p.width, p.columns};
  const Buffer<T> q(device, test::stored<T>(p.q)), k(device, test::stored<T>(p.k)),
      v(device, test::stored<T>(p.v)), score(device, test::stored<T>(p.score)),
      d_y(device, test::stored<T>(p.d_y)), y(device, T_ * B * D),
      d_q = target<T>(device, p.before_q, T_ * B * H),
      d_k = target<T>(device, p.before_k, S * B * H),
      d_v = target<T>(device, p.before_v, S * B * D);
  const Buffer<Acc> weights(device, B * T_ * S), d_score = target<Acc>(device, p.before_score, H);
  const Buffer<std::int32_t> length(device, p.length);
  const View<std::int32_t, 1> lengths = p.length.empty() ? View<std::int32_t, 1>{} : length.view(B);
  run(device, AdditiveAttentionForward<T>{.q = q.view(T_, B, H),
                                          .k = k.view(S, B, H),
                                          .v = v.view(S, B, D),
                                          .score = score.view(H),
                                          .length = lengths,
                                          .y = y.view(T_, B, D),
                                          .weights = weights.view(B, T_, S)});
  AdditiveAttentionBackward<T> backward{.q = q.view(T_, B, H),
                                        .k = k.view(S, B, H),
                                        .v = v.view(S, B, D),
                                        .score = score.view(H),
                                        .length = lengths,
                                        .weights = weights.view(B, T_, S),
                                        .d_y = d_y.view(T_, B, D),
                                        .d_q = {d_q.view(T_, B, H), p.accumulate},
                                        .d_k = {d_k.view(S, B, H), p.accumulate},
                                        .d_v = {d_v.view(S, B, D), p.accumulate},
                                        .d_score = {d_score.view(H), p.accumulate}};
  const auto scratch = test::give_scratch(device, backward);
  run(device, backward);
  return {test::as_double(y.read()),   test::as_double(weights.read()),
          test::as_double(d_q.read()), test::as_double(d_k.read()),
          test::as_double(d_v.read()), test::as_double(d_score.read())};
}

Solution oracle(const Problem& p) {
  Solution s{.y = Numbers(p.queries * p.batch * p.columns),
             .weights = Numbers(p.batch * p.queries * p.keys),
             .d_q = p.before_q,
             .d_k = p.before_k,
             .d_v = p.before_v,
             .d_score = p.before_score};
  s.d_q.resize(p.q.size()), s.d_k.resize(p.k.size()), s.d_v.resize(p.v.size());
  s.d_score.resize(p.width);
  for (std::size_t b = 0; b < p.batch; ++b) {
    const auto rows = [&](const Numbers& all, std::size_t steps, std::size_t columns) {
      reference::AdditiveRow::Rows result;
      for (std::size_t t = 0; t < steps; ++t) {
        const auto first = all.begin() + static_cast<std::ptrdiff_t>((t * p.batch + b) * columns);
        result.emplace_back(first, first + static_cast<std::ptrdiff_t>(columns));
      }
      return result;
    };
    const auto add = [&](const reference::AdditiveRow::Rows& from, Numbers& to) {
      for (std::size_t t = 0; t < from.size(); ++t) {
        for (std::size_t c = 0; c < from[t].size(); ++c) {
          to[(t * p.batch + b) * from[t].size() + c] += from[t][c];
        }
      }
    };
    const std::size_t keys = p.own_keys(b);
    const reference::AdditiveRow row{rows(p.q, p.queries, p.width), rows(p.k, keys, p.width),
                                     rows(p.v, keys, p.columns), p.score};
    const auto d_y = rows(p.d_y, p.queries, p.columns);
    reference::AdditiveRow::Gradients d{row.q, row.k, row.v, Numbers(p.width)};
    for (auto* const part : {&d.q, &d.k, &d.v}) {
      for (Numbers& each : *part) std::fill(each.begin(), each.end(), 0);
    }
    reference::AdditiveRow::Rows y;
    for (std::size_t t = 0; t < p.queries; ++t) {
      y.push_back(row.context(t, p.columns));
      const Numbers weight = row.weights(t);
      std::copy(weight.begin(), weight.end(),
                s.weights.begin() + static_cast<std::ptrdiff_t>((b * p.queries + t) * p.keys));
      row.backward(t, d_y[t], d);
    }
    add(y, s.y), add(d.q, s.d_q), add(d.k, s.d_k), add(d.v, s.d_v);
    for (std::size_t h = 0; h < p.width; ++h) s.d_score[h] += d.score[h];
  }
  return s;
}

/// Numbers in ±1, as T stores them; keys and values that do not count are NaN.
template <class T>
Problem random_problem(Problem p, bool with_lengths, bool accumulate = false) {
  std::mt19937 engine(static_cast<unsigned>(3 + p.queries * 31 + p.keys * 7 + p.width));
  std::uniform_real_distribution<double> number(-1, 1);
  const auto draw = [&]<class E>(std::type_identity<E>, std::size_t count) {
    Numbers values(count);
    for (double& value : values) value = number(engine);
    return test::as_double(test::stored<E>(values));
  };
  const std::type_identity<T> type;
  const std::size_t of_queries = p.queries * p.batch, of_keys = p.keys * p.batch;
  p.q = draw(type, of_queries * p.width), p.k = draw(type, of_keys * p.width);
  p.v = draw(type, of_keys * p.columns), p.d_y = draw(type, of_queries * p.columns);
  p.score = draw(type, p.width);
  p.accumulate = accumulate;
  if (accumulate) {
    p.before_q = draw(type, p.q.size()), p.before_k = draw(type, p.k.size());
    p.before_v = draw(type, p.v.size());
    p.before_score = draw(std::type_identity<Accumulator<T>>{}, p.width);
  }
  if (!with_lengths) return p;
  const auto most = static_cast<std::int32_t>(p.keys);
  for (std::size_t b = 0; b < p.batch; ++b) {
    p.length.push_back(b % 3 == 0 ? most * 2 / 3 : b % 3 == 1 ? most + 2 : -1);
    for (std::size_t s = p.own_keys(b); s < p.keys; ++s) {
      for (std::size_t h = 0; h < p.width; ++h) p.k[(s * p.batch + b) * p.width + h] = NAN;
      for (std::size_t d = 0; d < p.columns; ++d) p.v[(s * p.batch + b) * p.columns + d] = NAN;
    }
  }
  return p;
}

// Leg 1: worked by hand. Sums of query and key have tanh 0 and 1/2; times 2·ln 3 the scores are 0 and
// ln 3, the weights 1/4 and 3/4, and y = 8/4 + 3·4/4 = 5. With d_y = 1: d_z = 3/4 and −3/4.
TEST(AdditiveAttention, AQueryWorkedByHand) {
  const double half = std::atanh(0.5), factor = 2 * std::log(3.0);
  const Problem p{.queries = 1,
                  .keys = 2,
                  .q = {1},
                  .k = {-1, half - 1},
                  .v = {8, 4},
                  .score = {factor},
                  .d_y = {1}};
  for (const Device& device : test::devices()) {
    const Solution got = solve<float>(device, p);
    constexpr Tolerance kClose{.absolute = 1e-5};
    EXPECT_TRUE(test::close(got.weights, Numbers{0.25, 0.75}, kClose));
    EXPECT_TRUE(test::close(got.y, Numbers{5}, kClose));
    EXPECT_TRUE(test::close(got.d_v, Numbers{0.25, 0.75}, kClose));
    EXPECT_TRUE(test::close(got.d_k, Numbers{0.75 * factor, -0.75 * factor * 0.75}, kClose));
    EXPECT_TRUE(test::close(got.d_q, Numbers{0.75 * factor * 0.25}, kClose));
    EXPECT_TRUE(test::close(got.d_score, Numbers{-0.375}, kClose));
  }
}

// Leg 2: of the loss Σ d_y ∘ y, in every input.
TEST(AdditiveAttention, BackwardAgreesWithCentralDifferencesInDouble) {
  Problem p{.queries = 3, .keys = 4, .batch = 2, .width = 5, .columns = 3};
  p = random_problem<double>(p, false);
  p.length = {4, 3};
  const auto loss = [](const Problem& at) {
    const Numbers y = solve<double>(Cpu{}, at).y;
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * at.d_y[i];
    return sum;
  };
  const Solution got = solve<double>(Cpu{}, p);
  const auto expect = [&](Numbers Problem::*input, const Numbers& gradient) {
    constexpr double kStep = 1e-5;
    Numbers want;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      Problem up = p, down = p;
      (up.*input)[i] += kStep;
      (down.*input)[i] -= kStep;
      want.push_back((loss(up) - loss(down)) / (2 * kStep));
    }
    EXPECT_TRUE(test::close(gradient, want, {.absolute = 1e-8, .relative = 1e-7}));
  };
  expect(&Problem::q, got.d_q);
  expect(&Problem::k, got.d_k);
  expect(&Problem::v, got.d_v);
  expect(&Problem::score, got.d_score);
}

// Leg 3. Columns around 128 bits, a warp's and a block's; keys around a block's warps and its threads;
// a decoder of 300 units.
struct Case {
  std::size_t queries, keys, batch, width, columns;
  bool with_lengths = false;
};
const std::vector<Case> kCases{
    {0, 3, 2, 4, 4},   {3, 0, 2, 4, 5},          {3, 3, 0, 4, 4},    {2, 3, 2, 4, 0},
    {1, 1, 1, 1, 1},   {1, 5, 3, 31, 33, true},  {3, 4, 2, 32, 8},   {5, 33, 4, 17, 65, true},
    {2, 131, 1, 9, 3}, {4, 6, 3, 300, 20, true}, {1, 3, 1, 20, 520}, {1, 2, 1, 1030, 7},
};

struct Worst {
  double forward = 0, backward = 0;
};

template <class T>
void sweep_case(const Case& c, bool accumulate, Worst& worst) {
  const Problem p = random_problem<T>({c.queries, c.keys, c.batch, c.width, c.columns},
                                      c.with_lengths, accumulate);
  const Solution want = oracle(p);
  const Tolerances &forward = kAdditiveAttentionForwardTolerance,
                   &backward = kAdditiveAttentionBackwardTolerance;
  for (const Device& device : test::devices()) {
    SCOPED_TRACE(test::device_name(device) + ", " + std::to_string(c.queries) + " queries, " +
                 std::to_string(c.keys) + " keys, width " + std::to_string(c.width));
    const Solution got = solve<T>(device, p);
    EXPECT_TRUE(test::close(got.weights, want.weights, forward.f32));
    EXPECT_TRUE(test::close(got.d_score, want.d_score, backward.f32));
    const auto judge = [](const Numbers& have, const Numbers& truth, const Tolerance& tolerance,
                          double& most) {
      EXPECT_TRUE(test::close(have, truth, tolerance));
      most = std::max(most, test::worst_excess(have, truth, tolerance));
    };
    judge(got.y, want.y, test::of<T>(forward), worst.forward);
    judge(got.d_q, want.d_q, test::of<T>(backward), worst.backward);
    judge(got.d_k, want.d_k, test::of<T>(backward), worst.backward);
    judge(got.d_v, want.d_v, test::of<T>(backward), worst.backward);
  }
}

template <class T>
void sweep() {
  Worst worst;
  for (const Case& c : kCases) {
    for (const bool accumulate : {false, true}) sweep_case<T>(c, accumulate, worst);
  }
  test::expect_recorded(worst.forward, test::of<T>(kAdditiveAttentionForwardTolerance));
  test::expect_recorded(worst.backward, test::of<T>(kAdditiveAttentionBackwardTolerance));
}

TEST(AdditiveAttention, SweepInFloatStaysWithinItsTolerances) { sweep<float>(); }
TEST(AdditiveAttention, SweepInBf16StaysWithinItsTolerances) { sweep<bf16>(); }

// Leg 4: the contract on bad input.
TEST(AdditiveAttention, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 100);
  const Buffer<std::int32_t> lengths(Cpu{}, 10);
  float* const data = numbers.view(100).data;
  struct Bad {
    std::int64_t k_batch = 2, k_columns = 3, v_steps = 4, v_batch = 2, score = 3, length = 2,
                 y_steps = 1, y_batch = 2, y_columns = 5, weight_rows = 2, weight_queries = 1,
                 weight_keys = 4, d_columns = 3, d_score = 3;
  };
  const auto forward = [&](const Bad& c) {
    AdditiveAttentionForward<float>{
        .q = {data, {1, 2, 3}},
        .k = {data, {4, c.k_batch, c.k_columns}},
        .v = {data, {c.v_steps, c.v_batch, 5}},
        .score = {data, {c.score}},
        .length = lengths.view(c.length),
        .y = {data, {c.y_steps, c.y_batch, c.y_columns}},
        .weights = {data, {c.weight_rows, c.weight_queries, c.weight_keys}}}
        .check();
  };
  const auto backward = [&](const Bad& c) {
    AdditiveAttentionBackward<float>{
        .q = {data, {1, 2, 3}},
        .k = {data, {4, c.k_batch, c.k_columns}},
        .v = {data, {c.v_steps, c.v_batch, 5}},
        .score = {data, {c.score}},
        .length = lengths.view(c.length),
        .weights = {data, {c.weight_rows, c.weight_queries, c.weight_keys}},
        .d_y = {data, {c.y_steps, c.y_batch, c.y_columns}},
        .d_q = {{data, {1, 2, c.d_columns}}},
        .d_score = {{data, {c.d_score}}}}
        .check();
  };
  EXPECT_NO_THROW(forward({}));
  EXPECT_NO_THROW(backward({}));
  for (const Bad& bad : {Bad{.k_batch = 1}, Bad{.k_columns = 4}, Bad{.v_steps = 3},
                         Bad{.v_batch = 1}, Bad{.score = 2}, Bad{.length = 3}, Bad{.y_steps = 2},
                         Bad{.y_batch = 1}, Bad{.y_columns = 4}, Bad{.weight_rows = 1},
                         Bad{.weight_queries = 2}, Bad{.weight_keys = 3}}) {
    EXPECT_THROW(forward(bad), ShapeError);
    EXPECT_THROW(backward(bad), ShapeError);
  }
  EXPECT_THROW(backward({.d_columns = 2}), ShapeError);
  EXPECT_THROW(backward({.d_score = 2}), ShapeError);
}

TEST(AdditiveAttention, RefusesTooLittleScratch) {
  for (const Device& device : test::devices()) {
    const Buffer<float> x(device, Numbers(8).size());
    const View<float, 3> view = x.view(2, 2, 2);
    AdditiveAttentionBackward<float> op{.q = view,
                                        .k = view,
                                        .v = view,
                                        .score = {view.data, {2}},
                                        .weights = view,
                                        .d_y = view,
                                        .d_score = {{view.data, {2}}}};
    EXPECT_THROW(run(device, op), ShapeError);
  }
}

// Leg 5: invariants.
TEST(AdditiveAttention, WeightsSumToOneAndEqualKeysGiveTheMeanOfTheValues) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>({4, 6, 2, 8, 3}, false);
    for (std::size_t i = 0; i < p.k.size(); ++i) p.k[i] = p.k[i % 16];
    const Solution got = solve<float>(device, p);
    EXPECT_TRUE(test::close(got.weights, Numbers(got.weights.size(), 1.0 / 6), {.absolute = 1e-6}));
    for (std::size_t i = 0; i < got.y.size(); ++i) {
      double mean = 0;
      for (std::size_t s = 0; s < 6; ++s) mean += p.v[s * 6 + i % 6] / 6;
      EXPECT_NEAR(got.y[i], mean, 1e-6);
    }
  }
}

TEST(AdditiveAttention, WhatMovesFromQueriesToKeysChangesNothing) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>({4, 6, 2, 8, 3}, false), moved = p;
    for (double& x : moved.q) x += 0.5;
    for (double& x : moved.k) x -= 0.5;
    const Solution one = solve<float>(device, p), other = solve<float>(device, moved);
    EXPECT_TRUE(test::close(other.y, one.y, {.absolute = 3e-6}));
    EXPECT_TRUE(test::close(other.d_score, one.d_score, {.absolute = 1e-5}));
  }
}

TEST(AdditiveAttention, ANaNReachesTheQueriesThatSeeIt) {
  for (const Device& device : test::devices()) {
    for (Numbers Problem::*input : {&Problem::q, &Problem::k}) {
      Problem p = random_problem<float>({3, 4, 2, 8, 2}, false);
      (p.*input)[0] = NAN;  // step 0, row 0
      const Numbers y = solve<float>(device, p).y;
      for (std::size_t i = 0; i < y.size(); ++i) {
        const bool sees = i % 4 < 2 && (input == &Problem::k || i < 4);
        EXPECT_EQ(std::isnan(y[i]), sees) << i;
      }
    }
  }
}

TEST(AdditiveAttention, GivesTheSameBitsForEveryNumberOfThreads) {
  const Problem p = random_problem<float>({9, 12, 7, 60, 30}, true, true);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Solution want = solve<float>(Cpu{}, p);
  omp_set_num_threads(3);
  const Solution got = solve<float>(Cpu{}, p);
  omp_set_num_threads(threads);
  EXPECT_EQ(got.y, want.y);
  EXPECT_EQ(got.d_q, want.d_q);
  EXPECT_EQ(got.d_k, want.d_k);
  EXPECT_EQ(got.d_v, want.d_v);
  EXPECT_EQ(got.d_score, want.d_score);
}

}  // namespace
}  // namespace carousel
