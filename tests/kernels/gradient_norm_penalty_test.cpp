#include "kernels/gradient_norm_penalty/gradient_norm_penalty.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/gradient_norm_penalty.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;

struct Cell {
  SimpleActivation activation;
  double (*slope)(double h);
};
const std::vector<Cell> kCells{
    {SimpleActivation::tanh, [](double h) { return (1 - h) * (1 + h); }},
    {SimpleActivation::relu, [](double h) { return h > 0 ? 1.0 : 0.0; }},
    {SimpleActivation::linear, [](double) { return 1.0; }},
};

struct Problem {
  std::size_t steps = 0, batch = 0, width = 0;
  std::vector<double> delta{}, h{}, w{};
  std::size_t cell = 0;  ///< of kCells
  float weight = 1;
  std::vector<std::int32_t> begin{}, end{}, reset{};  ///< empty: absent
  std::vector<double> before{};  ///< what the gradient is added to; empty: it overwrites

  reference::HiddenStates states() const {
    reference::HiddenStates s{.steps = steps, .batch = batch, .width = width, .h = h};
    for (std::size_t n = 0; n < steps * batch; ++n) {
      const auto t = static_cast<std::int64_t>(n / batch);
      s.there.push_back((begin.empty() || t >= begin[n % batch]) &&
                        (end.empty() || t < end[n % batch]));
      s.starts.push_back(!reset.empty() && reset[n] != 0);
    }
    return s;
  }
  reference::GradientNormPenalty want() const {
    return reference::gradient_norm_penalty(states(), delta, w, kCells[cell].slope,
                                            static_cast<double>(weight));
  }
};

template <class A>
struct Solution {
  A penalty;
  std::vector<A> d_weight;
};

template <class T>
Solution<Accumulator<T>> solve(const Device& device, const Problem& p) {
  using A = Accumulator<T>;
  const auto given = [&](const std::vector<std::int32_t>& values) {
    return Buffer<std::int32_t>(device, values);
  };
  const Buffer<T> delta(device, test::stored<T>(p.delta)), h(device, test::stored<T>(p.h));
  const Buffer<T> w(device, test::stored<T>(p.w));
  const Buffer<A> d_w = p.before.empty() ? Buffer<A>(device, p.w.size())
                                         : Buffer<A>(device, test::stored<A>(p.before));
  const auto begin = given(p.begin), end = given(p.end), reset = given(p.reset);
  const Buffer<A> penalty(device, std::size_t{1});
  GradientNormPenalty<T> op{.activation = kCells[p.cell].activation,
                            .delta = delta.view(p.steps, p.batch, p.width),
                            .h = h.view(p.steps, p.batch, p.width),
                            .weight_hh = w.view(p.width, p.width),
                            .weight = p.weight,
                            .penalty = penalty.view(1),
                            .d_weight_hh = {d_w.view(p.width, p.width), !p.before.empty()}};
  if (!p.begin.empty()) op.begin = begin.view(p.batch);
  if (!p.end.empty()) op.end = end.view(p.batch);
  if (!p.reset.empty()) op.reset = reset.view(p.steps, p.batch);
  const auto scratch = test::give_scratch(device, op);
  run(device, op);
  return {penalty.read()[0], d_w.read()};
}

std::vector<double> uniform(std::size_t count, double bound, std::mt19937_64& random) {
  std::vector<double> values(count);
  for (double& v : values) {
    v = bound * (std::ldexp(static_cast<double>(random() >> 11), -52) - 1);
  }
  return values;
}

/// Gradients that fade by `fade` from each step to the one before, as δ does; ranges and resets in
/// two problems of three. δ is 0 outside a row's range.
template <class T>
Problem random_problem(std::size_t steps, std::size_t batch, std::size_t width, std::uint64_t seed,
                       double fade = 1) {
  std::mt19937_64 random(seed);
  Problem p{.steps = steps, .batch = batch, .width = width, .cell = seed % kCells.size()};
  const auto stored = [](const std::vector<double>& v) {
    return test::as_double(test::stored<T>(v));
  };
  p.h = stored(uniform(steps * batch * width, 0.9, random));
  p.w = stored(uniform(width * width, 2 / std::sqrt(static_cast<double>(width)), random));
  p.delta = uniform(steps * batch * width, 1, random);
  if (seed % 3 != 0) {
    const auto any = [&] { return static_cast<std::int32_t>(random() % (steps + 3)) - 1; };
    for (std::size_t b = 0; b < batch; ++b) p.end.push_back(any());
    for (std::size_t b = 0; b < batch && seed % 2 == 0; ++b) p.begin.push_back(any());
  }
  if (seed % 3 != 1) {
    for (std::size_t n = 0; n < steps * batch; ++n) p.reset.push_back(random() % 4 == 0 ? 7 : 0);
  }
  const auto states = p.states();
  for (std::size_t i = 0; i < p.delta.size(); ++i) {
    const std::size_t n = i / width;
    p.delta[i] *= std::pow(fade, static_cast<double>(steps - n / batch));
    if (!states.there[n]) p.delta[i] = 0;
  }
  p.delta = stored(p.delta);
  p.weight = static_cast<float>(width) / 4;  // for gradients of about 1
  return p;
}

// Leg 1: worked by hand. δ·W = (3, 4)·2: ratio 2. With φ' = (1, 0): ratio 6 / 5.
TEST(GradientNormPenalty, IsTheSquareOfTheRatioLessOneWorkedByHand) {
  Problem p{.steps = 2, .batch = 1, .width = 2, .w = {2, 0, 0, 2}, .cell = 1};
  p.delta = {9, 9, 3, 4};
  for (const Device& device : test::devices()) {
    p.h = {0.5, 0.5, 0.5, 0.5};
    const auto both = solve<float>(device, p);
    EXPECT_FLOAT_EQ(both.penalty, 1);
    // 2·(2 − 1)·δᵀ·u / (‖u‖·‖δ‖), u = (6, 8)
    EXPECT_TRUE(test::close(both.d_weight, std::vector<double>{0.72, 0.96, 0.96, 1.28},
                            kGradientNormPenaltyTolerance.f32));
    p.h = {0.5, -0.5, 0.5, 0.5};
    const auto one = solve<float>(device, p);
    EXPECT_FLOAT_EQ(one.penalty, 0.04F);
    EXPECT_TRUE(test::close(one.d_weight, std::vector<double>{0.24, 0, 0.32, 0},
                            kGradientNormPenaltyTolerance.f32));
  }
}

// Leg 2: the op's penalty is a function of W_hh with δ and h held constant, so that its central
// differences are the immediate gradient.
TEST(GradientNormPenalty, GradientAgreesWithCentralDifferencesInDouble) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const Problem p = random_problem<double>(6, 3, 4, seed, 0.1);
    const auto d_weight = solve<double>(Cpu{}, p).d_weight;
    for (std::size_t i = 0; i < p.w.size(); ++i) {
      Problem up = p, down = p;
      up.w[i] += 1e-5;
      down.w[i] -= 1e-5;
      const double want = static_cast<double>(p.weight) / 2e-5 *
                          (solve<double>(Cpu{}, up).penalty - solve<double>(Cpu{}, down).penalty);
      EXPECT_NEAR(d_weight[i], want, 1e-8) << "seed " << seed << " W[" << i << "]";
    }
  }
}

struct Size {
  std::size_t steps, batch, width;
  double fade = 1;
};
// None, one, around a vector, a warp and a block's rows, and a small layer; gradients that stay,
// vanish and explode.
const std::vector<Size> kSizes{
    {0, 2, 3}, {1, 1, 1},  {2, 1, 1},   {2, 3, 4}, {5, 2, 9, 1e-3},     {7, 3, 31, 20},
    {4, 0, 3}, {6, 9, 33}, {3, 5, 130}, {2, 2, 0}, {10, 32, 256, 0.01}, {9, 1, 8, 1e-3}};

// Leg 3: every device, type and size against the oracle.
template <class T>
void sweep(const Tolerance& tolerance, const std::vector<Device>& devices, bool record = true) {
  double worst = 0;
  std::uint64_t seed = 70;
  for (const Size& size : kSizes) {
    for (int round = 0; round < 3; ++round) {
      Problem p = random_problem<T>(size.steps, size.batch, size.width, ++seed, size.fade);
      if (seed % 2 == 0) {
        std::mt19937_64 random(seed);
        p.before = uniform(p.w.size(), 1, random);
      }
      const auto want = p.want();
      auto d_weight = want.d_weight;
      for (std::size_t i = 0; i < p.before.size(); ++i) d_weight[i] += p.before[i];
      for (const Device& device : devices) {
        const auto got = solve<T>(device, p);
        EXPECT_TRUE(test::close(got.d_weight, d_weight, tolerance)) << "seed " << seed;
        worst = std::max(worst, test::worst_excess(got.d_weight, d_weight, tolerance));
        const std::vector<Accumulator<T>> penalty{got.penalty};
        EXPECT_TRUE(test::close(penalty, std::vector{want.value}, tolerance)) << "seed " << seed;
        worst = std::max(worst, test::worst_excess(penalty, std::vector{want.value}, tolerance));
      }
    }
  }
  if (record) test::expect_recorded(worst, tolerance);
}

TEST(GradientNormPenalty, SweepStaysWithinItsTolerance) {
  sweep<float>(kGradientNormPenaltyTolerance.f32, test::devices());
  sweep<bf16>(kGradientNormPenaltyTolerance.bf16, test::devices());
  sweep<double>({.absolute = 1e-11, .relative = 1e-11}, {Cpu{}}, false);
}

// Leg 4: the contract on bad input.
TEST(GradientNormPenalty, APairThatNoLossReachesDoesNotCountAndOneOfRatioZeroDoes) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    // Two rows, of which the second has no gradient, or has one that the slope stops.
    Problem p{.steps = 2, .batch = 2, .width = 1, .w = {3}, .cell = 1};
    p.h = {1, 1, 1, 1};
    p.delta = {0, 0, 1, 0};
    EXPECT_EQ(solve<T>(device, p).penalty, 4);
    EXPECT_EQ(solve<T>(device, p).d_weight[0], 4);
    p.delta[3] = 1, p.h[1] = -1;
    EXPECT_EQ(solve<T>(device, p).penalty, 2.5);
    EXPECT_EQ(solve<T>(device, p).d_weight[0], 2);
    p.delta = {0, 0, 0, 0};
    EXPECT_EQ(solve<T>(device, p).penalty, 0);
    EXPECT_EQ(solve<T>(device, p).d_weight[0], 0);
    p.delta[3] = NAN;
    EXPECT_TRUE(std::isnan(solve<T>(device, p).penalty));
    EXPECT_TRUE(std::isnan(solve<T>(device, p).d_weight[0]));
  });
}

TEST(GradientNormPenalty, HiddenStatesOutsideARowsRangeAreNotLookedAt) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>(9, 4, 5, 2);
    const auto want = solve<float>(device, p);
    const auto states = p.states();
    for (std::size_t i = 0; i < p.h.size(); ++i) {
      if (!states.there[i / p.width]) p.h[i] = NAN;
    }
    const auto got = solve<float>(device, p);
    EXPECT_EQ(got.penalty, want.penalty);
    EXPECT_EQ(got.d_weight, want.d_weight);
  }
}

TEST(GradientNormPenalty, RefusesWhatItsContractRefuses) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 24);
  const Buffer<std::int32_t> ints(cpu, 24);
  const GradientNormPenalty<float> good{.delta = x.view(2, 3, 4),
                                        .h = x.view(2, 3, 4),
                                        .weight_hh = x.view(4, 4),
                                        .penalty = x.view(1),
                                        .d_weight_hh = {x.view(4, 4)}};
  EXPECT_NO_THROW(good.check());
  const auto refuses = [&](const auto& spoil) {
    GradientNormPenalty<float> op = good;
    spoil(op);
    EXPECT_THROW(op.check(), ShapeError);
  };
  refuses([&](auto& op) { op.delta = x.view(1, 3, 4); });
  refuses([&](auto& op) { op.delta = x.view(2, 2, 4); });
  refuses([&](auto& op) { op.delta = x.view(2, 3, 3); });
  refuses([&](auto& op) { op.weight_hh = x.view(3, 4); });
  refuses([&](auto& op) { op.weight_hh = x.view(4, 3); });
  refuses([&](auto& op) { op.d_weight_hh = {}; });
  refuses([&](auto& op) { op.begin = ints.view(2); });
  refuses([&](auto& op) { op.end = ints.view(4); });
  refuses([&](auto& op) { op.reset = ints.view(3, 3); });
  refuses([&](auto& op) { op.reset = ints.view(2, 4); });
  refuses([&](auto& op) { op.penalty = x.view(2); });
  EXPECT_THROW(run(cpu, good), ShapeError) << "no scratch";
  GradientNormPenalty<float> op = good;
  op.weight = NAN;
  EXPECT_THROW(op.check(), ConfigError);
}

// Leg 5: invariants. An orthogonal matrix keeps norms; the scale of the loss does not matter.
TEST(GradientNormPenalty, AnOrthogonalMatrixOfALinearCellHasNoneAndScaleDoesNotMatter) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem<float>(5, 3, 2, 3);
    p.cell = 2;
    p.w = {0.6, -0.8, 0.8, 0.6};
    const auto none = solve<float>(device, p);
    EXPECT_NEAR(none.penalty, 0, 1e-12);
    for (const float d : none.d_weight) EXPECT_NEAR(d, 0, 1e-6);
    p.w = {1, 2, 3, 4};
    const auto want = solve<float>(device, p);
    for (double& d : p.delta) d = std::ldexp(d, -90);  // exact
    const auto got = solve<float>(device, p);
    EXPECT_EQ(got.penalty, want.penalty);
    EXPECT_EQ(got.d_weight, want.d_weight);
  }
}

}  // namespace
}  // namespace carousel
