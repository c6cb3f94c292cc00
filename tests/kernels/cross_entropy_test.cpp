#include "kernels/cross_entropy/cross_entropy.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/cross_entropy.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;
using test::close;
using test::of;
using test::on_all_devices_and_types;
using test::stored;
using Problem = reference::CrossEntropy;
using Solution = reference::CrossEntropyResult;

enum class Place { kFresh, kOnto, kInPlace };  // where d_logits goes; kOnto: added to kOld
constexpr double kOld = 0.25;

template <class T>
Solution solve(const Device& device, const Problem& p, Place place = Place::kFresh) {
  using A = Accumulator<T>;
  const std::size_t n = p.rows, v = p.vocab;
  const Buffer<T> logits(device, stored<T>(p.logits));
  const Buffer<T> fresh(device, n * v), old(device, std::vector<T>(n * v, T(kOld)));
  const Buffer<A> loss(device, n), lse(device, n), d_loss(device, stored<A>(p.d_loss));
  const Buffer<std::int32_t> target(device, p.target);
  const Buffer<T>& d_logits = place == Place::kFresh ? fresh : place == Place::kOnto ? old : logits;
  const auto smoothing = static_cast<float>(p.smoothing);
  run(device, CrossEntropyForward<T>{.logits = logits.view(n, v),
                                     .target = target.view(n),
                                     .label_smoothing = smoothing,
                                     .loss = loss.view(n),
                                     .lse = lse.view(n)});
  run(device, CrossEntropyBackward<T>{.d_loss = d_loss.view(n),
                                      .logits = logits.view(n, v),
                                      .target = target.view(n),
                                      .label_smoothing = smoothing,
                                      .lse = lse.view(n),
                                      .d_logits = {d_logits.view(n, v), place == Place::kOnto}});
  return {as_double(loss.read()), as_double(lse.read()), as_double(d_logits.read())};
}

struct Size {
  std::size_t rows, vocab;
};

/// Logits in [−range, range] as T stores them, some masked (never a target, and none where
/// smoothing would make the loss infinite), some rows ignored.
template <class T>
Problem random_problem(Size size, unsigned seed, double range = 100, double smoothing = 0) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> logit(-range, range), weight(-2, 2);
  Problem p{.rows = size.rows, .vocab = size.vocab, .logits = {}, .target = {}, .d_loss = {}};
  p.smoothing = static_cast<double>(static_cast<float>(smoothing));
  for (std::size_t n = 0; n < size.rows; ++n) {
    const auto word = static_cast<std::int32_t>(random() % size.vocab);
    const bool ignored = random() % 5 == 0;
    p.target.push_back(ignored ? kIgnoreTarget : word);
    p.d_loss.push_back(static_cast<double>(static_cast<float>(weight(random))));
    for (std::size_t v = 0; v < size.vocab; ++v) {
      const double x = static_cast<double>(static_cast<T>(logit(random)));
      const bool masked =
          smoothing == 0 && random() % 17 == 0 && v != static_cast<std::size_t>(word);
      p.logits.push_back(masked ? -INFINITY : x);
    }
  }
  return p;
}

Problem one_row(std::vector<double> logits, std::int32_t target, double smoothing = 0) {
  const std::size_t vocab = logits.size();
  return {1, vocab, std::move(logits), {target}, smoothing, {1}};
}

// Worked by hand.
TEST(CrossEntropy, UniformLogitsCostLogV) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const Solution s = solve<T>(device, one_row({7, 7, 7, 7}, 2));
    EXPECT_TRUE(close(s.loss, std::vector{std::log(4.0)}, kCrossEntropyTolerance.f32));
    EXPECT_TRUE(close(s.lse, std::vector{7 + std::log(4.0)}, kCrossEntropyTolerance.f32));
    EXPECT_EQ(s.d_logits, (std::vector{0.25, 0.25, -0.75, 0.25}));
  });
}

TEST(CrossEntropy, SmoothingMixesInTheMeanOverAllWords) {  // p = ¼, ¾; q = 0.125, 0.875
  const double log3 = static_cast<double>(std::log(3.0F));
  const double want = -0.125 * std::log(0.25) - 0.875 * std::log(0.75);
  for (const Device& device : test::devices()) {
    const Solution s = solve<float>(device, one_row({0, log3}, 1, 0.25));
    EXPECT_TRUE(close(s.loss, std::vector{want}, kCrossEntropyTolerance.f32));
    EXPECT_TRUE(close(s.d_logits, std::vector{0.125, -0.125}, kCrossEntropyBackwardTolerance.f32));
  }
}

TEST(CrossEntropy, BackwardIsTheDerivativeOfForward) {
  constexpr double kStep = 1e-5;
  for (const double smoothing : {0.0, 0.125}) {
    Problem p = random_problem<double>({4, 19}, /*seed=*/3, /*range=*/3, smoothing);
    const Solution s = solve<double>(Cpu{}, p);
    const auto weighted_loss = [&] {
      double sum = 0;
      const Solution moved = solve<double>(Cpu{}, p);
      for (std::size_t n = 0; n < p.rows; ++n) sum += p.d_loss[n] * moved.loss[n];
      return sum;
    };
    std::vector<double> slope;
    for (double& x : p.logits) {
      const double middle = x;
      x = middle + kStep;
      const double above = weighted_loss();
      x = middle - kStep;
      slope.push_back((above - weighted_loss()) / (2 * kStep));
      x = middle;
    }
    EXPECT_TRUE(close(s.d_logits, slope, Tolerance{.absolute = 1e-9, .relative = 1e-8}));
  }
}

// None, one, one less and one more than a warp, than each block and each change of mapping, more
// rows than a block's warps, and GPT-2's vocabulary.
constexpr Size kSizes[] = {{0, 5},   {1, 1},    {3, 31},   {3, 33},   {20, 65},  {2, 255},
                           {2, 257}, {9, 1024}, {2, 1025}, {2, 8191}, {1, 8193}, {2, 50257}};

TEST(CrossEntropy, EveryDeviceAgreesWithTheOracle) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const Size size : kSizes) {
      SCOPED_TRACE(size.vocab);
      const Problem p = random_problem<T>(size, /*seed=*/17);
      const Solution got = solve<T>(device, p), want = reference::cross_entropy(p);
      EXPECT_TRUE(close(got.loss, want.loss, of<T>(kCrossEntropyTolerance)));
      EXPECT_TRUE(close(got.lse, want.lse, of<T>(kCrossEntropyTolerance)));
      EXPECT_TRUE(close(got.d_logits, want.d_logits, of<T>(kCrossEntropyBackwardTolerance)));
    }
  });
}

TEST(CrossEntropy, MaskedWordsAndBadTargetsAreAsTheContractSays) {
  const double nan = std::nan("");
  on_all_devices_and_types([&]<class T>(const Device& device, std::type_identity<T>) {
    const auto loss = [&](const Problem& p) { return solve<T>(device, p).loss[0]; };
    EXPECT_EQ(loss(one_row({0, -INFINITY, 1}, 1)), INFINITY);
    EXPECT_EQ(loss(one_row({0, -INFINITY, 1}, 1, 0.5)), INFINITY);
    EXPECT_EQ(loss(one_row({0, -INFINITY, 1}, 0, 0.5)), INFINITY);
    EXPECT_TRUE(std::isnan(loss(one_row({-INFINITY, -INFINITY}, 0))));
    EXPECT_TRUE(std::isnan(loss(one_row({0, nan, -INFINITY}, 0))));
    EXPECT_TRUE(std::isnan(loss(one_row({-INFINITY, -INFINITY, nan}, 0))));
    EXPECT_EQ(solve<T>(device, one_row({-INFINITY, -INFINITY}, 0)).lse[0], -INFINITY);
    for (const std::int32_t outside : {2, -2, INT32_MAX, INT32_MIN}) {
      const Solution s = solve<T>(device, one_row({0, 0}, outside));
      EXPECT_TRUE(std::isnan(s.loss[0]));
      EXPECT_TRUE(std::isnan(s.d_logits[0]) && std::isnan(s.d_logits[1]));
    }
    const Solution ignored = solve<T>(device, one_row({0, 3}, kIgnoreTarget, 0.5));
    EXPECT_EQ(ignored.loss[0], 0);
    EXPECT_EQ(ignored.d_logits, (std::vector<double>{0, 0}));
    const Solution kept = solve<T>(device, one_row({0, 3}, kIgnoreTarget), Place::kOnto);
    EXPECT_EQ(kept.d_logits, (std::vector{kOld, kOld}));
  });
}

TEST(CrossEntropy, RefusesExtentsThatDisagreeAndSmoothingOutsideItsRange) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, std::vector<float>(6)), row(cpu, std::vector<float>(2));
  const Buffer<std::int32_t> target(cpu, {0, 0});
  const CrossEntropyForward<float> good{
      .logits = x.view(2, 3), .target = target.view(2), .loss = row.view(2), .lse = row.view(2)};
  EXPECT_NO_THROW(good.check());
  const auto refuses = [&](auto change) {
    CrossEntropyForward<float> op = good;
    change(op);
    EXPECT_ANY_THROW(run(cpu, op));
  };
  refuses([&](auto& op) { op.logits = x.view(3, 2); });
  refuses([&](auto& op) { op.logits = x.view(2, 0); });
  refuses([&](auto& op) { op.loss = row.view(1); });
  refuses([&](auto& op) { op.lse = row.view(1); });
  for (const float epsilon : {-0.1F, 1.1F, NAN}) {
    refuses([&](auto& op) { op.label_smoothing = epsilon; });
  }
  CrossEntropyBackward<float> back{.d_loss = row.view(2),
                                   .logits = x.view(2, 3),
                                   .target = target.view(2),
                                   .lse = row.view(2),
                                   .d_logits = {x.view(2, 3), true}};
  EXPECT_THROW(back.check(), ShapeError);  // in place, and to be added to
  back.d_logits.accumulate = false;
  EXPECT_NO_THROW(back.check());
  back.d_logits = {x.view(3, 2)};
  EXPECT_THROW(back.check(), ShapeError);
}

TEST(CrossEntropy, GradientsOfARowSumToZeroAndAShiftOfItsLogitsChangesNothing) {
  for (const Device& device : test::devices()) {
    for (const Size size : {Size{3, 65}, Size{2, 1500}}) {
      Problem p = random_problem<float>(size, /*seed=*/5, /*range=*/4, /*smoothing=*/0.1);
      for (double& x : p.logits) x = std::round(x * 1024) / 1024;  // so that shifting is exact
      const Solution before = solve<float>(device, p);
      for (double& x : p.logits) x += 16;
      const Solution after = solve<float>(device, p);
      EXPECT_EQ(before.loss, after.loss);
      for (std::size_t n = 0; n < p.rows; ++n) {
        double sum = 0;
        for (std::size_t v = 0; v < p.vocab; ++v) sum += before.d_logits[n * p.vocab + v];
        EXPECT_NEAR(sum, 0, 4e-6);
      }
    }
  }
}

TEST(CrossEntropy, InPlaceAndAddedGradientsAreThoseWrittenAfresh) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const Size size : {Size{5, 65}, Size{3, 1111}}) {
      const Problem p = random_problem<T>(size, /*seed=*/23);
      const Solution fresh = solve<T>(device, p);
      EXPECT_EQ(solve<T>(device, p, Place::kInPlace).d_logits, fresh.d_logits);
      std::vector<double> want = reference::cross_entropy(p).d_logits;
      for (double& d : want) d += kOld;
      const Solution onto = solve<T>(device, p, Place::kOnto);
      EXPECT_TRUE(close(onto.d_logits, want, of<T>(kCrossEntropyBackwardTolerance)));
    }
  });
}

TEST(CrossEntropy, TheNumberOfThreadsChangesNoBit) {
  const Problem p = random_problem<float>({70, 1000}, /*seed=*/29, 100, /*smoothing=*/0.1);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Solution one = solve<float>(Cpu{}, p);
  omp_set_num_threads(3);
  const Solution three = solve<float>(Cpu{}, p);
  omp_set_num_threads(threads);
  EXPECT_EQ(one.loss, three.loss);
  EXPECT_EQ(one.d_logits, three.d_logits);
}

template <class T>
void sweep() {
  const Tolerance& forward = of<T>(kCrossEntropyTolerance);
  const Tolerance& backward = of<T>(kCrossEntropyBackwardTolerance);
  double loss = 0, gradient = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    const Size size{8, 1 + seed * seed % 1400};
    const Problem p = random_problem<T>(size, seed, seed % 2 == 0 ? 100 : 5, 0.1 * (seed % 3));
    const Solution want = reference::cross_entropy(p);
    for (const Device& device : test::devices()) {
      const Solution got = solve<T>(device, p);
      loss = std::fmax(loss, test::worst_excess(got.loss, want.loss, forward));
      loss = std::fmax(loss, test::worst_excess(got.lse, want.lse, forward));
      gradient = std::fmax(gradient, test::worst_excess(got.d_logits, want.d_logits, backward));
    }
  }
  test::expect_recorded(loss, forward);
  test::expect_recorded(gradient, backward);
}
TEST(CrossEntropy, SweepInFloat) { sweep<float>(); }
TEST(CrossEntropy, SweepInBf16) { sweep<bf16>(); }

}  // namespace
}  // namespace carousel
