#include "kernels/dropout/dropout.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/dropout.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using reference::Draw;
using test::Buffer;

struct Problem {
  std::vector<double> x;
  float drop_probability = 0;
  Draw draw{};
  std::vector<double> before{};  ///< what the backward pass adds to; empty: it overwrites
  std::size_t shift = 0;         ///< views begin this many elements into their memory
  bool in_place = false;
  std::int64_t period = 0;
};

template <class T>
struct Solution {
  std::vector<T> y, d_x;
};

/// Forward on x and backward with d_y = x: the same numbers, unless something is accumulated.
template <class T>
Solution<T> solve(const Device& device, const Problem& p) {
  const std::size_t size = p.x.size(), shift = p.shift;
  const auto shifted = [&](const std::vector<double>& values) {
    std::vector<double> all(shift, 77.0);
    all.insert(all.end(), values.begin(), values.end());
    return test::stored<T>(all);
  };
  const Buffer<T> x(device, shifted(p.x)), y(device, size + shift), d_y(device, shifted(p.x));
  const Buffer<T> d_x =
      p.before.empty() ? Buffer<T>(device, size + shift) : Buffer<T>(device, shifted(p.before));
  const Buffer<std::int64_t> step(device, std::vector<std::int64_t>{p.draw.step});
  const RandomSource source{.seed = p.draw.seed, .stream = p.draw.stream, .step = step.view(1)};
  const auto view = [&](const Buffer<T>& buffer) {
    return View<T, 1>(buffer.view(size + shift).data + shift, {static_cast<std::int64_t>(size)});
  };
  const Buffer<T>& y_or_x = p.in_place ? x : y;
  const Buffer<T>& d_x_or_d_y = p.in_place ? d_y : d_x;
  run(device, DropoutForward<T>{.x = view(x),
                                .y = view(y_or_x),
                                .drop_probability = p.drop_probability,
                                .source = source,
                                .period = p.period});
  run(device, DropoutBackward<T>{.d_y = view(d_y),
                                 .d_x = {view(d_x_or_d_y), !p.before.empty()},
                                 .drop_probability = p.drop_probability,
                                 .source = source,
                                 .period = p.period});
  const auto unshifted = [&](std::vector<T> values) {
    values.erase(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(shift));
    return values;
  };
  return {unshifted(y_or_x.read()), unshifted(d_x_or_d_y.read())};
}

/// Multiples of 2⁻⁷ in [−2, 2): exact in bf16, and sums with products of them exact in double.
std::vector<double> random_values(std::size_t size, std::mt19937_64& random) {
  std::vector<double> values(size);
  for (double& v : values) v = static_cast<double>(random() % 512) / 128 - 2;
  return values;
}

// Leg 1: worked by hand.
TEST(Dropout, OfOneQuarterKeepsFourThirdsOrNothing) {
  for (const Device& device : test::devices()) {
    const auto y = solve<float>(device, {.x = std::vector<double>(100, 3.0),
                                         .drop_probability = 0.25F,
                                         .draw = {1, 2, 3}})
                       .y;
    EXPECT_EQ(std::count(y.begin(), y.end(), 4.0F) + std::count(y.begin(), y.end(), 0.0F), 100);
    EXPECT_NEAR(static_cast<double>(std::count(y.begin(), y.end(), 4.0F)), 75, 20);
  }
}

TEST(Dropout, OfZeroCopiesAndOfOneGivesZeros) {
  std::mt19937_64 random(3);
  const auto x = random_values(1000, random);
  for (const Device& device : test::devices()) {
    EXPECT_EQ(solve<float>(device, {.x = x, .drop_probability = 0}).y, test::stored<float>(x));
    EXPECT_EQ(solve<float>(device, {.x = x, .drop_probability = 1}).y,
              std::vector<float>(1000, 0.0F));
  }
}

// One mask of three elements, repeated at all four steps.
TEST(Dropout, OfOnePeriodRepeatsItsMask) {
  const std::vector<double> ones(12, 1.0);
  for (const Device& device : test::devices()) {
    const auto y =
        solve<float>(device, {.x = ones, .drop_probability = 0.5F, .draw = {1, 2, 3}, .period = 3})
            .y;
    const auto once =
        solve<float>(device, {.x = ones, .drop_probability = 0.5F, .draw = {1, 2, 3}}).y;
    for (std::size_t n = 0; n < 12; ++n) EXPECT_EQ(y[n], once[n % 3]) << n;
    EXPECT_NE(y, once);
  }
}

// Leg 2: y is linear in x, so that central differences have no error but rounding.
TEST(Dropout, BackwardAgreesWithCentralDifferencesInDouble) {
  std::mt19937_64 random(5);
  Problem p{
      .x = random_values(36, random), .drop_probability = 0.3F, .draw = {7, 1, 9}, .period = 9};
  const auto weight = random_values(36, random);  // L = Σ weight·y
  const auto loss = [&](const std::vector<double>& x) {
    Problem moved = p;
    moved.x = x;
    const auto y = solve<double>(Cpu{}, moved).y;
    double sum = 0;
    for (std::size_t n = 0; n < y.size(); ++n) sum += weight[n] * y[n];
    return sum;
  };
  Problem backward = p;
  backward.x = weight;  // d_y
  const auto d_x = solve<double>(Cpu{}, backward).d_x;
  for (std::size_t n = 0; n < p.x.size(); ++n) {
    auto up = p.x, down = p.x;
    up[n] += 0.5;
    down[n] -= 0.5;
    EXPECT_NEAR(d_x[n], loss(up) - loss(down), 1e-12) << "x[" << n << "]";
  }
}

// Leg 3, exact: awkward sizes, aligned or not, in place or not, overwriting and adding.
// Of a size: no period, itself, and what divides it, down to one element.
std::vector<std::int64_t> periods(std::size_t size) {
  std::vector<std::int64_t> result{0};
  for (const std::size_t parts : {1, 3, 4, 17, 25, 4099}) {
    if (size > 0 && size % parts == 0) result.push_back(static_cast<std::int64_t>(size / parts));
  }
  return result;
}

template <class T>
double sweep_excess(const Device& device, const Tolerance& tolerance) {
  std::mt19937_64 random(11);
  double worst = 0;
  for (const std::size_t size :
       {0, 1, 3, 4, 5, 31, 32, 33, 255, 256, 257, 1023, 1025, 4099, 40'001}) {
    for (const std::int64_t period : periods(size)) {
      for (const float drop_probability : {0.0F, 0x1p-24F, 0.1F, 0.5F, 0.9F, 1 - 0x1p-24F, 1.0F}) {
        Problem p{.x = random_values(size, random),
                  .drop_probability = drop_probability,
                  .draw = {random(), random() % 100, static_cast<std::int64_t>(random() >> 1)},
                  .shift = random() % 3,
                  .period = period};
        auto want = reference::dropout(p.x, p.draw, static_cast<double>(drop_probability),
                                       period == 0 ? size + 1 : static_cast<std::size_t>(period));
        p.in_place = random() % 2 == 0;
        const Solution<T> written = solve<T>(device, p);
        worst = std::max(worst, test::worst_excess(written.y, test::stored<T>(want), tolerance));
        worst = std::max(worst, test::worst_excess(written.d_x, test::stored<T>(want), tolerance));

        if (size == 0) continue;  // an empty `before` says overwrite
        p.in_place = false;
        p.before = random_values(size, random);
        for (std::size_t n = 0; n < size; ++n) want[n] += p.before[n];
        const Solution<T> added = solve<T>(device, p);
        worst = std::max(worst, test::worst_excess(added.d_x, test::stored<T>(want), tolerance));
      }
    }
  }
  return worst;
}

TEST(Dropout, SweepEqualsTheOracleBitForBitOnEveryDevice) {
  static_assert(kDropoutTolerance.f32.absolute == 0 && kDropoutTolerance.f32.relative == 0);
  static_assert(kDropoutTolerance.bf16.absolute == 0 && kDropoutTolerance.bf16.relative == 0);
  for (const Device& device : test::devices()) {
    EXPECT_EQ(sweep_excess<float>(device, kDropoutTolerance.f32), kDropoutTolerance.f32.worst)
        << test::device_name(device);
    EXPECT_EQ(sweep_excess<bf16>(device, kDropoutTolerance.bf16), kDropoutTolerance.bf16.worst)
        << test::device_name(device);
  }
}

TEST(Dropout, TheMaskIsTheContractsFarBeyondFourBillionElements) {
  const RandomSource source{.seed = 17, .stream = 4};
  for (std::int64_t n = (std::int64_t{1} << 35) - 20; n < (std::int64_t{1} << 35) + 20; ++n) {
    EXPECT_EQ(dropout_keeps(source, std::int64_t{1} << 40, n, 0.5F),
              reference::dropout_mask({17, 4, std::int64_t{1} << 40}, static_cast<std::uint64_t>(n),
                                      0.5) == 1.0);
  }
}

// Leg 4: the contract on bad input.
TEST(Dropout, RefusesWhatItsContractRefuses) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 3), y(cpu, 3);
  const Buffer<std::int64_t> step(cpu, std::vector<std::int64_t>{0});
  const RandomSource source{.step = step.view(1)};
  for (const float bad : {-0.1F, 1.1F, NAN}) {
    EXPECT_THROW(
        run(cpu,
            DropoutForward<float>{
                .x = x.view(3), .y = y.view(3), .drop_probability = bad, .source = source}),
        ConfigError);
    EXPECT_THROW(
        run(cpu,
            DropoutBackward<float>{
                .d_y = x.view(3), .d_x = {y.view(3)}, .drop_probability = bad, .source = source}),
        ConfigError);
  }
  EXPECT_THROW(run(cpu, DropoutForward<float>{.x = x.view(3), .y = y.view(2), .source = source}),
               ShapeError);
  EXPECT_THROW(
      run(cpu, DropoutBackward<float>{.d_y = x.view(3), .d_x = {y.view(2)}, .source = source}),
      ShapeError);
  EXPECT_THROW(run(cpu, DropoutForward<float>{.x = x.view(3), .y = y.view(3), .source = {}}),
               ShapeError);
  for (const std::int64_t bad : {-1, 2, 4}) {
    EXPECT_THROW(
        run(cpu,
            DropoutForward<float>{.x = x.view(3), .y = y.view(3), .source = source, .period = bad}),
        ShapeError);
    EXPECT_THROW(run(cpu,
                     DropoutBackward<float>{
                         .d_y = x.view(3), .d_x = {y.view(3)}, .source = source, .period = bad}),
                 ShapeError);
  }
}

TEST(Dropout, ADroppedNaNStaysNaN) {
  for (const Device& device : test::devices()) {
    const auto y = solve<float>(device, {.x = std::vector<double>(64, std::nan("")),
                                         .drop_probability = 0.5F,
                                         .draw = {1, 1, 1}})
                       .y;
    for (const float v : y) EXPECT_TRUE(std::isnan(v));
  }
}

// Leg 5: invariants.
double kept_share(const Draw& a, const Draw& b, float drop_probability) {
  const std::vector<double> ones(40'000, 1.0);
  const auto first = solve<float>(Cpu{}, {ones, drop_probability, a}).y;
  const auto second = solve<float>(Cpu{}, {ones, drop_probability, b}).y;
  double both = 0;
  for (std::size_t n = 0; n < ones.size(); ++n) both += first[n] != 0 && second[n] != 0;
  return both / 40'000;
}

TEST(Dropout, KeepsItsShareAndDrawsAnewForEachSeedStreamAndStep) {
  const Draw draw{21, 22, 23};
  const double sigma = std::sqrt(0.25 / 40'000);
  EXPECT_NEAR(kept_share(draw, draw, 0.3F), 0.7, 5 * sigma);
  for (const Draw& other : {Draw{20, 22, 23}, Draw{21, 21, 23}, Draw{21, 22, 24}}) {
    EXPECT_NEAR(kept_share(draw, other, 0.3F), 0.49, 5 * sigma);
  }
}

TEST(Dropout, WhatSurvivesAHigherProbabilitySurvivesALowerOne) {
  const std::vector<double> ones(4096, 1.0);
  for (const Device& device : test::devices()) {
    const auto low = solve<float>(device, {ones, 0.2F, {5, 6, 7}}).y;
    const auto high = solve<float>(device, {ones, 0.6F, {5, 6, 7}}).y;
    for (std::size_t n = 0; n < ones.size(); ++n) EXPECT_TRUE(high[n] == 0 || low[n] != 0);
  }
}

TEST(Dropout, TheNumberOfThreadsChangesNothing) {
  std::mt19937_64 random(29);
  for (const std::int64_t period : {0, 3333, 9}) {
    const Problem p{.x = random_values(99'990, random),
                    .drop_probability = 0.4F,
                    .draw = {3, 2, 1},
                    .period = period};
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const auto one = solve<float>(Cpu{}, p).y;
    omp_set_num_threads(3);
    const auto three = solve<float>(Cpu{}, p).y;
    omp_set_num_threads(threads);
    EXPECT_EQ(one, three);
  }
}

}  // namespace
}  // namespace carousel
