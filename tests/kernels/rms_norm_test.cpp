#include "kernels/rms_norm/rms_norm.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/combine/combine.h"
#include "kernels/common/check.h"
#include "tests/reference/rms_norm.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/numbers.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using test::random_numbers;
using Numbers = std::vector<double>;

struct Problem {
  std::size_t rows = 0, columns = 0;
  Numbers x{}, d_y{}, gain{};  ///< an empty gain is absent
  float epsilon = 1e-5F;
  Numbers before_x{}, before_gain{};  ///< what is added to; empty: it is overwritten
};

struct Solution {
  Numbers y{}, inverse_rms{}, d_x{}, d_gain{};
};

template <class T>
Solution solve(const Device& device, const Problem& p) {
  using Acc = Accumulator<T>;
  const std::size_t N = p.rows, C = p.columns;
  const Buffer<T> x(device, test::stored<T>(p.x)), d_y(device, test::stored<T>(p.d_y)),
      y(device, N * C), d_x = test::gradient_buffer<T>(device, p.before_x, N * C);
  const Buffer<Acc> gain(device, test::stored<Acc>(p.gain)), inverse(device, N),
      d_gain = test::gradient_buffer<Acc>(device, p.before_gain, C);
  const View<Acc, 1> given = p.gain.empty() ? View<Acc, 1>{} : gain.view(C);
  run(device, RmsNormForward<T>{.x = x.view(N, C),
                                .gain = given,
                                .epsilon = p.epsilon,
                                .y = y.view(N, C),
                                .inverse_rms = inverse.view(N)});
  RmsNormBackward<T> backward{.x = x.view(N, C),
                              .gain = given,
                              .inverse_rms = inverse.view(N),
                              .d_y = d_y.view(N, C),
                              .d_x = {d_x.view(N, C), !p.before_x.empty()},
                              .d_gain = {d_gain.view(C), !p.before_gain.empty()}};
  const auto scratch = test::give_scratch(device, backward);
  run(device, backward);
  return {test::as_double(y.read()), test::as_double(inverse.read()), test::as_double(d_x.read()),
          test::as_double(d_gain.read())};
}

/// Rows of 1 to 2 with either sign.
template <class T>
Problem random_problem(std::size_t rows, std::size_t columns, bool with_gain, bool accumulate) {
  using Acc = Accumulator<T>;
  const auto seed = static_cast<unsigned>(rows * 31 + columns);
  Problem p{.rows = rows, .columns = columns, .x = random_numbers<T>(rows * columns, 1, seed)};
  for (double& x : p.x) x = x < 0 ? x - 1 : x + 1;
  p.x = test::as_double(test::stored<T>(p.x));
  p.d_y = random_numbers<T>(rows * columns, 1, seed + 1);
  if (with_gain) p.gain = random_numbers<Acc>(columns, 1, seed + 2);
  if (accumulate) {
    p.before_x = random_numbers<T>(rows * columns, 1, seed + 3);
    p.before_gain = random_numbers<Acc>(columns, 1, seed + 4);
  }
  return p;
}

Solution oracle(const Problem& p) {
  const std::size_t C = p.columns;
  const Numbers gain = p.gain.empty() ? Numbers(C, 1) : p.gain;
  const auto epsilon = static_cast<double>(p.epsilon);
  Solution s{.d_x = p.before_x, .d_gain = p.before_gain};
  s.d_x.resize(p.x.size());
  s.d_gain.resize(C);
  for (std::size_t first = 0; first < p.x.size(); first += C) {
    const Numbers row(&p.x[first], &p.x[first] + C), d(&p.d_y[first], &p.d_y[first] + C);
    const Numbers d_x = reference::rms_norm_backward(row, gain, d, epsilon);
    const double inverse = reference::inverse_rms(row, epsilon);
    s.inverse_rms.push_back(inverse);
    for (std::size_t c = 0; c < C; ++c) {
      s.y.push_back(gain[c] * row[c] * inverse);
      s.d_x[first + c] += d_x[c];
      s.d_gain[c] += d[c] * row[c] * inverse;
    }
  }
  return s;
}

// Leg 1: of 1, 1, 1, 1 and epsilon 3 the divisor is 2. With δ = gain ∘ d_y = 2, 0, 0, 0 the mean of
// δ ∘ x is 1/2 and d_x = (δ − x / 8) / 2.
TEST(RmsNorm, ARowWorkedByHand) {
  for (const Device& device : test::devices()) {
    const Solution got = solve<float>(device, {.rows = 1,
                                               .columns = 4,
                                               .x = {1, -1, 1, 1},
                                               .d_y = {1, 0, 0, 0},
                                               .gain = {2, 3, 3, 1},
                                               .epsilon = 3});
    EXPECT_EQ(got.y, (Numbers{1, -1.5, 1.5, 0.5}));
    EXPECT_EQ(got.inverse_rms, Numbers{0.5});
    EXPECT_EQ(got.d_x, (Numbers{0.9375, 0.0625, -0.0625, -0.0625}));
    EXPECT_EQ(got.d_gain, (Numbers{0.5, 0, 0, 0}));
  }
}

// Leg 2: of the loss Σ d_y ∘ y, in every input.
TEST(RmsNorm, BackwardAgreesWithCentralDifferencesInDouble) {
  const Problem p = random_problem<double>(7, 13, true, false);
  const Solution got = solve<double>(Cpu{}, p);
  const auto expect = [&](Numbers Problem::*input, const Numbers& gradient) {
    const Numbers want = test::central_differences(p.*input, [&](const Numbers& moved) {
      Problem at = p;
      at.*input = moved;
      return test::dot(solve<double>(Cpu{}, at).y, p.d_y);
    });
    EXPECT_TRUE(test::close(gradient, want, {.absolute = 1e-8, .relative = 1e-7}));
  };
  expect(&Problem::x, got.d_x);
  expect(&Problem::gain, got.d_gain);
}

// Leg 3. Columns around a piece, a warp, and where a row gets more threads; rows around a group of
// sums; a hidden layer.
struct Size {
  std::size_t rows, columns;
};
constexpr Size kSizes[] = {{0, 3},    {1, 1},    {1, 5},    {33, 2},   {9, 31},
                           {8, 32},   {5, 129},  {70, 257}, {3, 1024}, {2, 1025},
                           {1, 8192}, {1, 8195}, {300, 12}, {1024, 5}};

template <class T>
void sweep() {
  double worst_forward = 0, worst_backward = 0;
  const Tolerance &forward = test::of<T>(kRmsNormForwardTolerance),
                  &backward = test::of<T>(kRmsNormBackwardTolerance),
                  &sums = kRmsNormBackwardTolerance.f32;
  for (const auto& [rows, columns] : kSizes) {
    for (const int choice : {0, 1, 2, 3}) {
      const Problem p = random_problem<T>(rows, columns, choice % 2 == 1, choice > 1);
      const Solution want = oracle(p);
      for (const Device& device : test::devices()) {
        SCOPED_TRACE(test::device_name(device) + ", " + std::to_string(rows) + " rows of " +
                     std::to_string(columns));
        const Solution got = solve<T>(device, p);
        EXPECT_TRUE(test::close(got.y, want.y, forward));
        EXPECT_TRUE(test::close(got.inverse_rms, want.inverse_rms, kRmsNormForwardTolerance.f32));
        EXPECT_TRUE(test::close(got.d_x, want.d_x, backward));
        EXPECT_TRUE(test::close(got.d_gain, want.d_gain, sums));
        worst_forward = std::max(worst_forward, test::worst_excess(got.y, want.y, forward));
        worst_backward = std::max({worst_backward, test::worst_excess(got.d_x, want.d_x, backward),
                                   test::worst_excess(got.d_gain, want.d_gain, sums)});
      }
    }
  }
  test::expect_recorded(worst_forward, forward);
  test::expect_recorded(worst_backward, backward);
}

TEST(RmsNorm, SweepStaysWithinItsTolerances) {
  sweep<float>();
  sweep<bf16>();
}

/// The sum of two matrices and its norm: in one pass, `in_place` in the first of them, or by the ops of each.
template <class T>
std::array<Numbers, 3> sum_and_norm(const Device& device, const Problem& p, bool fused,
                                    bool in_place = false) {
  using Acc = Accumulator<T>;
  const std::size_t N = p.rows, C = p.columns;
  const Buffer<T> x(device, test::stored<T>(p.x)), added(device, test::stored<T>(p.d_y)),
      own(device, N * C), y(device, N * C);
  const Buffer<Acc> gain(device, test::stored<Acc>(p.gain)), inverse(device, N);
  const Buffer<T>& sum = in_place ? x : own;
  RmsNormForward<T> op{.x = x.view(N, C),
                       .added = added.view(N, C),
                       .gain = gain.view(C),
                       .sum = sum.view(N, C),
                       .y = y.view(N, C),
                       .inverse_rms = inverse.view(N)};
  if (!fused) {
    run(device, Add<T>{.a = x.view(N * C), .b = added.view(N * C), .y = sum.view(N * C)});
    op.x = sum.view(N, C), op.added = {}, op.sum = {};
  }
  run(device, op);
  return {test::as_double(sum.read()), test::as_double(y.read()), test::as_double(inverse.read())};
}

template <class T>
void expect_sums_and_norms_alike() {
  for (const auto& [rows, columns] : kSizes) {
    const Problem p = random_problem<T>(rows, columns, true, false);
    for (const Device& device : test::devices()) {
      SCOPED_TRACE(test::device_name(device) + ", " + std::to_string(rows) + " rows of " +
                   std::to_string(columns));
      const auto want = sum_and_norm<T>(device, p, false);
      EXPECT_EQ(sum_and_norm<T>(device, p, true), want);
      EXPECT_EQ(sum_and_norm<T>(device, p, true, true), want);
    }
  }
}

TEST(RmsNorm, ASumAndItsNormAreToTheLastBitThoseOfTheOps) {
  expect_sums_and_norms_alike<float>();
  expect_sums_and_norms_alike<bf16>();
}

// Leg 4: the contract on bad input.
TEST(RmsNorm, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 100);
  float* const data = numbers.view(100).data;
  const RmsNormForward<float> forward{
      .x = {data, {3, 4}}, .gain = {data, {4}}, .y = {data, {3, 4}}, .inverse_rms = {data, {3}}};
  const RmsNormBackward<float> backward{.x = {data, {3, 4}},
                                        .gain = {data, {4}},
                                        .inverse_rms = {data, {3}},
                                        .d_y = {data, {3, 4}},
                                        .d_x = {{data, {3, 4}}},
                                        .d_gain = {{data, {4}}}};
  EXPECT_NO_THROW(forward.check());
  EXPECT_NO_THROW(backward.check());
  const auto refuses = [](const auto& good, const auto& spoil) {
    auto bad = good;
    spoil(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refuses(forward, [](auto& op) { op.x.extent[1] = op.y.extent[1] = op.gain.extent[0] = 0; });
  refuses(forward, [](auto& op) { op.gain.extent[0] = 3; });
  refuses(forward, [](auto& op) { op.y.extent[0] = 2; });
  refuses(forward, [](auto& op) { op.y.extent[1] = 5; });
  refuses(forward, [](auto& op) { op.inverse_rms.extent[0] = 4; });
  RmsNormForward<float> summing = forward;
  summing.added = {data, {3, 4}}, summing.sum = {data, {3, 4}};
  EXPECT_NO_THROW(summing.check());
  refuses(summing, [](auto& op) { op.added.extent[0] = 2; });
  refuses(summing, [](auto& op) { op.sum.extent[1] = 3; });
  refuses(summing, [](auto& op) { op.added = {}; });
  refuses(summing, [](auto& op) { op.sum = {}; });
  refuses(backward, [](auto& op) { op.x.extent[1] = 0; });
  refuses(backward, [](auto& op) { op.gain.extent[0] = 5; });
  refuses(backward, [](auto& op) { op.inverse_rms.extent[0] = 2; });
  refuses(backward, [](auto& op) { op.d_y.extent[0] = 4; });
  refuses(backward, [](auto& op) { op.d_y.extent[1] = 3; });
  refuses(backward, [](auto& op) { op.d_x.view.extent[0] = 4; });
  refuses(backward, [](auto& op) { op.d_x.view.extent[1] = 3; });
  refuses(backward, [](auto& op) { op.d_gain.view.extent[0] = 3; });
  for (const float epsilon : {-1.0F, NAN}) {
    RmsNormForward<float> bad = forward;
    bad.epsilon = epsilon;
    EXPECT_THROW(bad.check(), ConfigError);
  }
}

TEST(RmsNorm, ANaNReachesItsRowAloneAndZerosStay) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>(3, 40, true, false);
    std::fill(&p.x[0], &p.x[40], 0);
    p.x[50] = NAN;
    const Solution got = solve<float>(device, p);
    for (std::size_t c = 0; c < 40; ++c) {
      EXPECT_EQ(got.y[c], 0);
      EXPECT_TRUE(std::isnan(got.y[40 + c]) && std::isnan(got.d_x[40 + c]));
      EXPECT_FALSE(std::isnan(got.y[80 + c]) || std::isnan(got.d_x[80 + c]));
    }
    p.epsilon = 0;
    EXPECT_TRUE(std::isnan(solve<float>(device, p).y[0]));
  }
}

// Leg 5: invariants.
TEST(RmsNorm, TheScaleOfARowChangesNothingAndItsGradientIsAcrossIt) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>(9, 300, true, false);
    p.epsilon = 0;
    const Solution one = solve<float>(device, p);
    Problem scaled = p;
    for (double& x : scaled.x) x *= 4;  // exact
    EXPECT_EQ(solve<float>(device, scaled).y, one.y);
    for (std::size_t first = 0; first < p.x.size(); first += p.columns) {
      double along = 0;
      for (std::size_t c = first; c < first + p.columns; ++c) along += one.d_x[c] * p.x[c];
      EXPECT_NEAR(along, 0, 1e-4);
    }
  }
}

TEST(RmsNorm, GivesTheSameBitsForEveryNumberOfThreadsAndInPlace) {
  const Problem p = random_problem<float>(257, 301, true, false);
  const int threads = omp_get_max_threads();
  for (const Device& device : test::devices()) {
    omp_set_num_threads(1);
    const Solution want = solve<float>(device, p);
    omp_set_num_threads(3);
    const Solution got = solve<float>(device, p);
    omp_set_num_threads(threads);
    EXPECT_EQ(got.y, want.y);
    EXPECT_EQ(got.d_x, want.d_x);
    EXPECT_EQ(got.d_gain, want.d_gain);
    const Buffer<float> x(device, test::stored<float>(p.x)), d(device, test::stored<float>(p.d_y)),
        gain(device, test::stored<float>(p.gain)),
        inverse(device, test::stored<float>(want.inverse_rms));
    run(device, RmsNormBackward<float>{.x = x.view(p.rows, p.columns),
                                       .gain = gain.view(p.columns),
                                       .inverse_rms = inverse.view(p.rows),
                                       .d_y = d.view(p.rows, p.columns),
                                       .d_x = {d.view(p.rows, p.columns)}});
    EXPECT_EQ(test::as_double(d.read()), want.d_x);
  }
}

}  // namespace
}  // namespace carousel
