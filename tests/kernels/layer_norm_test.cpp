#include "kernels/layer_norm/layer_norm.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/layer_norm.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using Numbers = std::vector<double>;

struct Problem {
  std::size_t rows = 0, columns = 0;
  Numbers x{}, d_y{}, gain{}, bias{};  ///< an empty gain or bias is absent
  float epsilon = 1e-5F;
  Numbers before_x{}, before_gain{}, before_bias{};  ///< what is added to; empty: it is overwritten
};

struct Solution {
  Numbers y{}, mean{}, inverse_deviation{}, d_x{}, d_gain{}, d_bias{};
};

template <class T>
Buffer<T> target(const Device& device, const Numbers& before, std::size_t size) {
  return before.empty() ? Buffer<T>(device, size) : Buffer<T>(device, test::stored<T>(before));
}

template <class T>
Solution solve(const Device& device, const Problem& p) {
  using Acc = Accumulator<T>;
  const std::size_t N = p.rows, C = p.columns;
  const Buffer<T> x(device, test::stored<T>(p.x)), d_y(device, test::stored<T>(p.d_y)),
      y(device, N * C), d_x = target<T>(device, p.before_x, N * C);
  const Buffer<Acc> gain(device, test::stored<Acc>(p.gain)),
      bias(device, test::stored<Acc>(p.bias)), mean(device, N), inverse(device, N),
      d_gain = target<Acc>(device, p.before_gain, C),
      d_bias = target<Acc>(device, p.before_bias, C);
  const auto given = [C](const Buffer<Acc>& b) {
    return b.size() == 0 ? View<Acc, 1>{} : b.view(C);
  };
  run(device, LayerNormForward<T>{.x = x.view(N, C),
                                  .gain = given(gain),
                                  .bias = given(bias),
                                  .epsilon = p.epsilon,
                                  .y = y.view(N, C),
                                  .mean = mean.view(N),
                                  .inverse_deviation = inverse.view(N)});
  LayerNormBackward<T> backward{.x = x.view(N, C),
                                .gain = given(gain),
                                .mean = mean.view(N),
                                .inverse_deviation = inverse.view(N),
                                .d_y = d_y.view(N, C),
                                .d_x = {d_x.view(N, C), !p.before_x.empty()},
                                .d_gain = {d_gain.view(C), !p.before_gain.empty()},
                                .d_bias = {d_bias.view(C), !p.before_bias.empty()}};
  const auto scratch = test::give_scratch(device, backward);
  run(device, backward);
  return {test::as_double(y.read()),       test::as_double(mean.read()),
          test::as_double(inverse.read()), test::as_double(d_x.read()),
          test::as_double(d_gain.read()),  test::as_double(d_bias.read())};
}

/// Numbers in ±1, as T stores them.
template <class T>
Numbers random_numbers(std::size_t count, std::mt19937& engine) {
  std::uniform_real_distribution<double> number(-1, 1);
  Numbers values(count);
  for (double& v : values) v = number(engine);
  return test::as_double(test::stored<T>(values));
}

/// Rows around 0, 1, 2 …: every other number lies above and below, so that a mean is at most ten
/// deviations.
template <class T>
Problem random_problem(std::size_t rows, std::size_t columns, bool with_parameters,
                       bool accumulate) {
  using Acc = Accumulator<T>;
  std::mt19937 engine(static_cast<unsigned>(17 + rows * 31 + columns));
  Problem p{.rows = rows, .columns = columns};
  for (std::size_t n = 0; n < rows; ++n) {
    for (const double x : random_numbers<T>(columns, engine)) {
      const double above = p.x.size() % 2 == 0 ? 1 : -1;
      p.x.push_back(static_cast<double>(n % 6) + above * (1 + x / 4));
    }
  }
  p.x = test::as_double(test::stored<T>(p.x));
  p.d_y = random_numbers<T>(rows * columns, engine);
  if (with_parameters) {
    p.gain = random_numbers<Acc>(columns, engine);
    p.bias = random_numbers<Acc>(columns, engine);
  }
  if (accumulate) {
    p.before_x = random_numbers<T>(rows * columns, engine);
    p.before_gain = random_numbers<Acc>(columns, engine);
    p.before_bias = random_numbers<Acc>(columns, engine);
  }
  return p;
}

Solution oracle(const Problem& p) {
  const std::size_t C = p.columns;
  const Numbers gain = p.gain.empty() ? Numbers(C, 1) : p.gain,
                bias = p.bias.empty() ? Numbers(C, 0) : p.bias;
  Solution s{.d_x = p.before_x, .d_gain = p.before_gain, .d_bias = p.before_bias};
  s.d_x.resize(p.x.size()), s.d_gain.resize(C), s.d_bias.resize(C);
  for (std::size_t first = 0; first < p.x.size(); first += C) {
    const auto row_of = [&](const Numbers& all) { return Numbers(&all[first], &all[first] + C); };
    const Numbers row = row_of(p.x), d = row_of(p.d_y);
    const auto epsilon = static_cast<double>(p.epsilon);
    const Numbers y = reference::layer_norm(row, gain, bias, epsilon),
                  d_x = reference::layer_norm_backward(row, gain, d, epsilon),
                  normal = reference::normalized(row, epsilon);
    s.y.insert(s.y.end(), y.begin(), y.end());
    s.mean.push_back(reference::mean(row));
    s.inverse_deviation.push_back(1 / std::sqrt(reference::variance(row) + epsilon));
    for (std::size_t c = 0; c < C; ++c) {
      s.d_x[first + c] += d_x[c];
      s.d_gain[c] += d[c] * normal[c];
      s.d_bias[c] += d[c];
    }
  }
  return s;
}

// Leg 1: worked by hand. Of 1, 3, 5, 7 the mean is 4 and the variance 5; epsilon 4 makes the
// deviation 3. With δ = gain ∘ d_y = 2, 0, 0, 0 and x̂ = −1, −1/3, 1/3, 1: mean(δ) = 1/2, mean(δx̂) = −1/2.
TEST(LayerNorm, ARowWorkedByHand) {
  for (const Device& device : test::devices()) {
    const Solution got = solve<float>(device, {.rows = 1,
                                               .columns = 4,
                                               .x = {1, 3, 5, 7},
                                               .d_y = {1, 0, 0, 0},
                                               .gain = {2, 3, 3, 1},
                                               .bias = {0, 10, 0, 1},
                                               .epsilon = 4});
    constexpr Tolerance kExact{.absolute = 1e-6};
    EXPECT_TRUE(test::close(got.y, Numbers{-2, 9, 1, 2}, kExact));
    EXPECT_TRUE(test::close(got.d_x, Numbers{1.0 / 3, -2.0 / 9, -1.0 / 9, 0}, kExact));
    EXPECT_TRUE(test::close(got.d_gain, Numbers{-1, 0, 0, 0}, kExact));
    EXPECT_EQ(got.d_bias, (Numbers{1, 0, 0, 0}));
    EXPECT_EQ(got.mean, Numbers{4});
  }
}

// Leg 2: of the loss Σ d_y ∘ y, in every input.
TEST(LayerNorm, BackwardAgreesWithCentralDifferencesInDouble) {
  const Problem p = random_problem<double>(7, 13, true, false);
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
  expect(&Problem::x, got.d_x);
  expect(&Problem::gain, got.d_gain);
  expect(&Problem::bias, got.d_bias);
}

// Leg 3. Columns around a piece, a warp, and where a row gets more threads; rows around a group of
// sums; a hidden layer.
struct Size {
  std::size_t rows, columns;
};
const std::vector<Size> kSizes{{0, 3},    {1, 1},    {1, 5},    {33, 2},   {9, 31},
                               {8, 32},   {5, 129},  {70, 257}, {3, 1024}, {2, 1025},
                               {1, 8192}, {1, 8195}, {300, 12}, {1024, 5}};

struct Worst {
  double forward = 0, backward = 0;
};

template <class T>
void sweep_problem(const Problem& p, const Tolerances& forward, const Tolerances& backward,
                   Worst& worst) {
  const Solution want = oracle(p);
  const Tolerance &y = test::of<T>(forward), &d = test::of<T>(backward);
  for (const Device& device : test::devices()) {
    const Solution got = solve<T>(device, p);
    SCOPED_TRACE(test::device_name(device) + ", " + std::to_string(p.rows) + " rows of " +
                 std::to_string(p.columns));
    EXPECT_TRUE(test::close(got.y, want.y, y));
    EXPECT_TRUE(test::close(got.mean, want.mean, forward.f32));
    EXPECT_TRUE(test::close(got.inverse_deviation, want.inverse_deviation, backward.f32));
    EXPECT_TRUE(test::close(got.d_x, want.d_x, d));
    EXPECT_TRUE(test::close(got.d_gain, want.d_gain, backward.f32));
    EXPECT_TRUE(test::close(got.d_bias, want.d_bias, backward.f32));
    worst.forward = std::max(worst.forward, test::worst_excess(got.y, want.y, y));
    worst.backward = std::max({worst.backward, test::worst_excess(got.d_x, want.d_x, d),
                               test::worst_excess(got.d_gain, want.d_gain, backward.f32)});
  }
}

template <class T>
void sweep() {
  Worst worst;
  for (const auto& [rows, columns] : kSizes) {
    for (const bool with_parameters : {false, true}) {
      for (const bool accumulate : {false, true}) {
        sweep_problem<T>(random_problem<T>(rows, columns, with_parameters, accumulate),
                         kLayerNormForwardTolerance, kLayerNormBackwardTolerance, worst);
      }
    }
  }
  test::expect_recorded(worst.forward, test::of<T>(kLayerNormForwardTolerance));
  test::expect_recorded(worst.backward, test::of<T>(kLayerNormBackwardTolerance));
}

TEST(LayerNorm, SweepStaysWithinItsTolerances) {
  sweep<float>();
  sweep<bf16>();
}

// Leg 4: the contract on bad input.
TEST(LayerNorm, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 100);
  struct Case {
    std::int64_t columns = 4, gain = 4, bias = 4, y_rows = 3, y_columns = 4, mean = 3, inverse = 3;
    float epsilon = 0;
  };
  const auto forward = [&](const Case& c) {
    float* const data = numbers.view(100).data;
    LayerNormForward<float>{.x = {data, {3, c.columns}},
                            .gain = {data, {c.gain}},
                            .bias = {data, {c.bias}},
                            .epsilon = c.epsilon,
                            .y = {data, {c.y_rows, c.y_columns}},
                            .mean = {data, {c.mean}},
                            .inverse_deviation = {data, {c.inverse}}}
        .check();
  };
  const auto backward = [&](const Case& c) {
    float* const data = numbers.view(100).data;
    const View<float, 2> y{data, {c.y_rows, c.y_columns}};
    const auto check = [&](const View<float, 2>& d_y, const View<float, 2>& d_x) {
      LayerNormBackward<float>{.x = {data, {3, c.columns}},
                               .gain = {data, {c.gain}},
                               .mean = {data, {c.mean}},
                               .inverse_deviation = {data, {c.inverse}},
                               .d_y = d_y,
                               .d_x = {d_x},
                               .d_bias = {{data, {c.bias}}}}
          .check();
    };
    const View<float, 2> good{data, {3, c.columns}};
    check(good, good);
    check(y, good);
  };
  EXPECT_NO_THROW(forward({}));
  EXPECT_NO_THROW(backward({}));
  for (const Case& bad :
       {Case{.columns = 0, .gain = 0, .bias = 0, .y_columns = 0}, Case{.gain = 3}, Case{.bias = 5},
        Case{.y_rows = 2}, Case{.y_columns = 5}, Case{.mean = 2}, Case{.inverse = 4}}) {
    EXPECT_THROW(forward(bad), ShapeError);
    EXPECT_THROW(backward(bad), ShapeError);
  }
  EXPECT_THROW(forward({.epsilon = -1}), ConfigError);
  EXPECT_THROW(forward({.epsilon = NAN}), ConfigError);
}

TEST(LayerNorm, ANaNReachesItsRowAloneAndEqualNumbersGiveTheBias) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>(3, 40, true, false);
    std::fill(&p.x[0], &p.x[40], 5);
    p.x[50] = NAN;
    const Solution got = solve<float>(device, p);
    for (std::size_t c = 0; c < 40; ++c) {
      EXPECT_EQ(got.y[c], p.bias[c]);
      EXPECT_TRUE(std::isnan(got.y[40 + c]) && std::isnan(got.d_x[40 + c]));
      EXPECT_FALSE(std::isnan(got.y[80 + c]) || std::isnan(got.d_x[80 + c]));
    }
    p.epsilon = 0;
    EXPECT_TRUE(std::isnan(solve<float>(device, p).y[0]));
  }
}

// Leg 5: invariants.
TEST(LayerNorm, ShiftAndScaleOfARowChangeNothingAndItsGradientSumsToZero) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>(9, 300, true, false);
    p.epsilon = 0;
    const Solution one = solve<float>(device, p);
    Problem moved = p;
    for (double& x : moved.x) x = 4 * x + 8;  // exact, but for the last bits of a sum
    EXPECT_TRUE(test::close(solve<float>(device, moved).y, one.y, {.absolute = 1e-5}));
    for (std::size_t n = 0; n < p.rows; ++n) {
      double sum = 0, along = 0;
      for (std::size_t i = n * p.columns; i < (n + 1) * p.columns; ++i) {
        sum += one.d_x[i];
        along += one.d_x[i] * p.x[i];
      }
      EXPECT_NEAR(sum, 0, 1e-4);
      EXPECT_NEAR(along, 0, 1e-3);
    }
  }
}

TEST(LayerNorm, GivesTheSameBitsForEveryNumberOfThreads) {
  const Problem p = random_problem<float>(257, 301, true, true);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Solution want = solve<float>(Cpu{}, p);
  omp_set_num_threads(3);
  const Solution got = solve<float>(Cpu{}, p);
  omp_set_num_threads(threads);
  EXPECT_EQ(got.y, want.y);
  EXPECT_EQ(got.d_x, want.d_x);
  EXPECT_EQ(got.d_gain, want.d_gain);
  EXPECT_EQ(got.d_bias, want.d_bias);
}

TEST(LayerNorm, TheGradientMayTakeThePlaceOfTheOneItComesFrom) {
  for (const Device& device : test::devices()) {
    const Problem p = random_problem<float>(20, 1100, true, false);
    const Solution want = solve<float>(device, p);
    const Buffer<float> x(device, test::stored<float>(p.x)), d(device, test::stored<float>(p.d_y)),
        gain(device, test::stored<float>(p.gain)), mean(device, test::stored<float>(want.mean)),
        inverse(device, test::stored<float>(want.inverse_deviation)), d_gain(device, p.columns);
    LayerNormBackward<float> op{.x = x.view(p.rows, p.columns),
                                .gain = gain.view(p.columns),
                                .mean = mean.view(p.rows),
                                .inverse_deviation = inverse.view(p.rows),
                                .d_y = d.view(p.rows, p.columns),
                                .d_x = {d.view(p.rows, p.columns)},
                                .d_gain = {d_gain.view(p.columns)}};
    const auto scratch = test::give_scratch(device, op);
    run(device, op);
    EXPECT_EQ(test::as_double(d.read()), want.d_x);
    EXPECT_EQ(test::as_double(d_gain.read()), want.d_gain);
  }
}

}  // namespace
}  // namespace carousel
