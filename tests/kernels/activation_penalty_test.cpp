#include "kernels/activation_penalty/activation_penalty.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/activation_penalty.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;

constexpr PenaltyKind kKinds[] = {PenaltyKind::activation, PenaltyKind::temporal};

struct Problem {
  std::size_t steps = 0, batch = 0, width = 0;
  std::vector<double> h{};
  PenaltyKind kind = PenaltyKind::activation;
  float weight = 1;
  std::vector<std::int32_t> begin{}, end{}, reset{};  ///< empty: absent
  std::vector<double> before{};  ///< what the gradient is added to; empty: it overwrites

  /// As the oracle takes it.
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
};

template <class T>
struct Solution {
  Accumulator<T> penalty;
  std::vector<T> d_h;
};

template <class T>
Solution<T> solve(const Device& device, const Problem& p) {
  using A = Accumulator<T>;
  const auto given = [&](const std::vector<std::int32_t>& values) {
    return Buffer<std::int32_t>(device, values);
  };
  const Buffer<T> h(device, test::stored<T>(p.h));
  const Buffer<T> d_h = p.before.empty() ? Buffer<T>(device, p.h.size())
                                         : Buffer<T>(device, test::stored<T>(p.before));
  const auto begin = given(p.begin), end = given(p.end), reset = given(p.reset);
  const Buffer<A> penalty(device, std::size_t{1});
  ActivationPenalty<T> op{.kind = p.kind,
                          .h = h.view(p.steps, p.batch, p.width),
                          .weight = p.weight,
                          .penalty = penalty.view(1),
                          .d_h = {d_h.view(p.steps, p.batch, p.width), !p.before.empty()}};
  if (!p.begin.empty()) op.begin = begin.view(p.batch);
  if (!p.end.empty()) op.end = end.view(p.batch);
  if (!p.reset.empty()) op.reset = reset.view(p.steps, p.batch);
  const auto scratch = test::give_scratch(device, op);
  run(device, op);
  return {penalty.read()[0], d_h.read()};
}

std::vector<double> uniform(std::size_t count, std::mt19937_64& random) {
  std::vector<double> values(count);
  for (double& v : values) {
    v = static_cast<double>(
        static_cast<float>(std::ldexp(static_cast<double>(random() >> 11), -52)) - 1);
  }
  return values;
}

/// With ranges and resets, or with neither: every third problem has none.
Problem random_problem(std::size_t steps, std::size_t batch, std::size_t width,
                       std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Problem p{.steps = steps, .batch = batch, .width = width};
  p.h = uniform(steps * batch * width, random);
  if (seed % 3 != 0) {
    const auto any = [&] {  // also before the first step and behind the last
      return static_cast<std::int32_t>(random() % (steps + 3)) - 1;
    };
    for (std::size_t b = 0; b < batch; ++b) p.end.push_back(any());
    for (std::size_t b = 0; b < batch && seed % 2 == 0; ++b) p.begin.push_back(any());
  }
  if (seed % 3 != 1) {
    for (std::size_t n = 0; n < steps * batch; ++n) p.reset.push_back(random() % 4 == 0 ? 7 : 0);
  }
  // Gradients of about 1.
  p.weight = static_cast<float>(p.h.size()) / 4;
  return p;
}

// Leg 1: worked by hand.
TEST(ActivationPenalty, IsTheMeanOfTheSquaresWorkedByHand) {
  Problem p{.steps = 3, .batch = 1, .width = 2, .h = {1, 2, 3, 2, 0, -4}};
  for (const Device& device : test::devices()) {
    p.kind = PenaltyKind::activation, p.weight = 3;
    const auto values = solve<float>(device, p);
    EXPECT_FLOAT_EQ(values.penalty, 34.0F / 6);  // (1 + 4 + 9 + 4 + 0 + 16) / 6
    EXPECT_EQ(values.d_h, (std::vector<float>{1, 2, 3, 2, 0, -4}));
    p.kind = PenaltyKind::temporal, p.weight = 2;
    const auto changes = solve<float>(device, p);
    EXPECT_FLOAT_EQ(changes.penalty, 49.0F / 4);  // changes: (2, 0), (−3, −6)
    EXPECT_EQ(changes.d_h, (std::vector<float>{-2, 0, 5, 6, -3, -6}));
  }
}

// Leg 2: squares are quadratic, so that central differences have no error but rounding.
TEST(ActivationPenalty, GradientAgreesWithCentralDifferencesInDouble) {
  for (const PenaltyKind kind : kKinds) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      Problem p = random_problem(5, 3, 2, seed);
      p.kind = kind;
      const auto d_h = solve<double>(Cpu{}, p).d_h;
      for (std::size_t i = 0; i < p.h.size(); ++i) {
        Problem up = p, down = p;
        up.h[i] += 0.5;
        down.h[i] -= 0.5;
        const double want = static_cast<double>(p.weight) *
                            (solve<double>(Cpu{}, up).penalty - solve<double>(Cpu{}, down).penalty);
        EXPECT_NEAR(d_h[i], want, 1e-12) << "seed " << seed << " h[" << i << "]";
      }
    }
  }
}

struct Size {
  std::size_t steps, batch, width;
};
// None, one, around a vector and a warp, more than all blocks at once, and a real layer's window.
const std::vector<Size> kSizes{{0, 2, 3}, {1, 1, 1},   {2, 3, 4},    {5, 2, 9},    {7, 3, 31},
                               {4, 0, 3}, {6, 33, 33}, {3, 5, 257},  {2000, 5, 3}, {35, 20, 200},
                               {2, 2, 0}, {9, 1, 8},   {200, 30, 48}};

// Leg 3: every device, type and size against the oracle.
template <class T>
void sweep(const Tolerance& tolerance, const std::vector<Device>& devices, bool record = true) {
  double worst = 0;
  std::uint64_t seed = 50;
  for (const Size& size : kSizes) {
    for (const PenaltyKind kind : kKinds) {
      Problem p = random_problem(size.steps, size.batch, size.width, ++seed);
      p.kind = kind;
      p.h = test::as_double(test::stored<T>(p.h));
      const auto want = reference::activation_penalty(p.states(), kind == PenaltyKind::temporal,
                                                      static_cast<double>(p.weight));
      auto d_h = want.d_h;
      if (seed % 4 < 2 && !d_h.empty()) {
        std::mt19937_64 random(seed);
        p.before = test::as_double(test::stored<T>(uniform(d_h.size(), random)));
        for (std::size_t i = 0; i < d_h.size(); ++i) d_h[i] += p.before[i];
      }
      for (const Device& device : devices) {
        const Solution<T> got = solve<T>(device, p);
        EXPECT_TRUE(test::close(got.d_h, d_h, tolerance)) << "seed " << seed;
        worst = std::max(worst, test::worst_excess(got.d_h, d_h, tolerance));
        const std::vector<Accumulator<T>> penalty{got.penalty};
        worst = std::max(worst, test::worst_excess(penalty, std::vector{want.value}, tolerance));
      }
    }
  }
  if (record) test::expect_recorded(worst, tolerance);
}

TEST(ActivationPenalty, SweepStaysWithinItsTolerance) {
  sweep<float>(kActivationPenaltyTolerance.f32, test::devices());
  sweep<bf16>(kActivationPenaltyTolerance.bf16, test::devices());
  sweep<double>({.absolute = 1e-12, .relative = 1e-12}, {Cpu{}}, false);
}

// Leg 4: the contract on bad input.
TEST(ActivationPenalty, WhatLiesOutsideARowsRangeIsNotRead) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const PenaltyKind kind : kKinds) {
      Problem p = random_problem(9, 4, 5, 2);
      p.kind = kind;
      const auto want = solve<T>(device, p);
      const auto states = p.states();
      for (std::size_t i = 0; i < p.h.size(); ++i) {
        if (!states.there[i / p.width]) p.h[i] = NAN;
      }
      const auto got = solve<T>(device, p);
      EXPECT_EQ(got.penalty, want.penalty);
      EXPECT_EQ(test::as_double(got.d_h), test::as_double(want.d_h));
      p.h[0] = NAN, p.begin.clear(), p.end.clear(), p.reset.clear();
      EXPECT_TRUE(std::isnan(solve<T>(device, p).penalty));
    }
  });
}

TEST(ActivationPenalty, AMeanOfNothingIsZero) {
  for (const Device& device : test::devices()) {
    for (const PenaltyKind kind : kKinds) {
      const auto s = solve<float>(device, {.steps = 2,
                                           .batch = 1,
                                           .width = 2,
                                           .h = {NAN, NAN, NAN, NAN},
                                           .kind = kind,
                                           .end = {0}});
      EXPECT_EQ(s.penalty, 0);
      EXPECT_EQ(s.d_h, std::vector<float>(4, 0));
    }
    // One step, and two of which the second starts anew, have no pair.
    const auto s = solve<float>(device, {.steps = 2,
                                         .batch = 2,
                                         .width = 1,
                                         .h = {1, 2, 3, 4},
                                         .kind = PenaltyKind::temporal,
                                         .end = {1, 2},
                                         .reset = {0, 0, 0, 1}});
    EXPECT_EQ(s.penalty, 0);
    EXPECT_EQ(s.d_h, std::vector<float>(4, 0));
  }
}

TEST(ActivationPenalty, RefusesWhatItsContractRefuses) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 24);
  const Buffer<std::int32_t> ints(cpu, 24);
  const ActivationPenalty<float> good{
      .h = x.view(2, 3, 4), .penalty = x.view(1), .d_h = {x.view(2, 3, 4)}};
  EXPECT_NO_THROW(good.check());
  const auto refuses = [&](const auto& spoil) {
    ActivationPenalty<float> op = good;
    spoil(op);
    EXPECT_THROW(op.check(), ShapeError);
  };
  refuses([&](auto& op) { op.begin = ints.view(2); });
  refuses([&](auto& op) { op.end = ints.view(4); });
  refuses([&](auto& op) { op.reset = ints.view(3, 3); });
  refuses([&](auto& op) { op.reset = ints.view(2, 4); });
  refuses([&](auto& op) { op.penalty = x.view(2); });
  refuses([&](auto& op) { op.d_h.view = x.view(1, 3, 4); });
  refuses([&](auto& op) { op.d_h.view = x.view(2, 4, 4); });
  refuses([&](auto& op) { op.d_h.view = x.view(2, 3, 3); });
  EXPECT_THROW(run(cpu, good), ShapeError) << "no scratch";
  ActivationPenalty<float> op = good;
  op.weight = INFINITY;
  EXPECT_THROW(op.check(), ConfigError);
}

// Leg 5: invariants.
TEST(ActivationPenalty, AShiftChangesNoDifferenceAndAScaleChangesItsSquare) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem(8, 3, 5, 3);       // no range, so that all steps count
    for (double& v : p.h) v = std::round(8 * v);  // integers, whose sums are exact
    p.kind = PenaltyKind::temporal;
    Problem shifted = p, doubled = p;
    for (double& v : shifted.h) v += 3;
    for (double& v : doubled.h) v *= 2;
    const auto want = solve<float>(device, p);
    EXPECT_EQ(solve<float>(device, shifted).penalty, want.penalty);
    EXPECT_EQ(solve<float>(device, shifted).d_h, want.d_h);
    EXPECT_EQ(solve<float>(device, doubled).penalty, 4 * want.penalty);
  }
}

TEST(ActivationPenalty, RepeatsBitForBitWithAnyNumberOfThreads) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem(300, 7, 33, 5);
    p.kind = PenaltyKind::temporal;
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const auto one = solve<float>(device, p);
    omp_set_num_threads(3);
    const auto three = solve<float>(device, p);
    omp_set_num_threads(threads);
    EXPECT_EQ(one.penalty, three.penalty);
    EXPECT_EQ(one.d_h, three.d_h);
  }
}

}  // namespace
}  // namespace carousel
