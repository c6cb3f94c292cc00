#include "kernels/pooling/pooling.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/pooling.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;

constexpr Pooling kKinds[] = {Pooling::mean, Pooling::max};

struct Problem {
  std::size_t steps = 0, batch = 0, width = 0;
  std::vector<double> x{}, d_y{};
  std::vector<std::int32_t> length{};  ///< empty: absent
  Pooling kind = Pooling::mean;
  std::vector<double> before{};  ///< what the backward pass adds to; empty: it overwrites

  std::vector<std::int32_t> lengths() const {
    return length.empty() ? std::vector<std::int32_t>(batch, static_cast<std::int32_t>(steps))
                          : length;
  }
};

template <class T>
struct Solution {
  std::vector<T> y;
  std::vector<std::int32_t> chosen;
  std::vector<T> d_x;
};

template <class T>
Solution<T> solve(const Device& device, const Problem& p) {
  const std::size_t states = p.batch * p.width, size = p.steps * states;
  const Buffer<T> x(device, test::stored<T>(p.x)), d_y(device, test::stored<T>(p.d_y));
  const Buffer<T> y(device, states), d_x = p.before.empty()
                                               ? Buffer<T>(device, size)
                                               : Buffer<T>(device, test::stored<T>(p.before));
  const bool is_max = p.kind == Pooling::max;
  const Buffer<std::int32_t> length(device, p.lengths()), steps(device, is_max ? states : 0);
  const auto chosen = is_max ? steps.view(p.batch, p.width) : View<std::int32_t, 2>();
  const auto lengths = p.length.empty() ? View<std::int32_t, 1>() : length.view(p.batch);
  run(device, PoolingForward<T>{.x = x.view(p.steps, p.batch, p.width),
                                .length = lengths,
                                .kind = p.kind,
                                .y = y.view(p.batch, p.width),
                                .chosen = chosen});
  run(device, PoolingBackward<T>{.d_y = d_y.view(p.batch, p.width),
                                 .length = lengths,
                                 .kind = p.kind,
                                 .chosen = chosen,
                                 .d_x = {d_x.view(p.steps, p.batch, p.width), !p.before.empty()}});
  return {y.read(), steps.read(), d_x.read()};
}

reference::Pooled oracle(const Problem& p) {
  const reference::PoolingInput in{p.steps, p.batch, p.width, p.x, p.lengths()};
  auto before = p.before.empty() ? std::vector<double>(p.x.size(), 0.0) : p.before;
  return p.kind == Pooling::max ? reference::max_pooling(in, p.d_y, std::move(before))
                                : reference::mean_pooling(in, p.d_y, std::move(before));
}

/// What x holds: numbers in [−1, 1], numbers in [0, 1] (whose sums grow most), or one of −2 … 2, so
/// that most maxima are ties, among them of 0 and −0.
enum class Fill { even, positive, ties };

std::vector<double> random_values(std::size_t count, Fill fill, std::mt19937_64& random) {
  std::vector<double> values(count);
  for (double& v : values) {
    const double u = std::ldexp(static_cast<double>(random() >> 11), -53);
    v = fill == Fill::even ? 2 * u - 1 : fill == Fill::positive ? u : std::trunc(5 * u - 2.5);
  }
  return values;
}

struct Size {
  std::size_t steps, batch, width;
};

/// A problem whose padding is NaN; every other one has lengths, from below 0 to above T.
Problem random_problem(const Size& size, Pooling kind, Fill fill, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::size_t states = size.batch * size.width;
  Problem p{.steps = size.steps,
            .batch = size.batch,
            .width = size.width,
            .x = random_values(size.steps * states, fill, random),
            .d_y = random_values(states, Fill::even, random),
            .kind = kind};
  if (seed % 2 == 0) return p;
  for (std::size_t b = 0; b < size.batch; ++b) {
    p.length.push_back(static_cast<std::int32_t>(random() % (size.steps + 5)) - 2);
    for (std::size_t t = 0; t < size.steps; ++t) {
      if (static_cast<std::int64_t>(t) < p.length[b]) continue;
      std::fill_n(p.x.begin() + static_cast<std::ptrdiff_t>((t * size.batch + b) * size.width),
                  size.width, std::nan(""));
    }
  }
  return p;
}

template <class T>
std::vector<std::uint64_t> bits(const std::vector<T>& values) {
  std::vector<std::uint64_t> result;
  for (const T v : values) result.push_back(std::bit_cast<std::uint64_t>(static_cast<double>(v)));
  return result;
}

// Leg 1: worked by hand. Row 0 has two steps, row 1 none, row 2 (whose length is beyond T) three.
const double kNaN = std::nan("");
const Problem kByHand{.steps = 3,
                      .batch = 3,
                      .width = 2,
                      .x = {1, -4, kNaN, kNaN, 2, 2,     //
                            3, -8, kNaN, kNaN, 7, kNaN,  //
                            kNaN, kNaN, kNaN, kNaN, 7, 8},
                      .d_y = {10, 20, 30, 40, 6, 9},
                      .length = {2, -1, 4}};

TEST(Pooling, MeanGivesEveryStepItsShare) {
  for (const Device& device : test::devices()) {
    const auto s = solve<float>(device, kByHand);
    EXPECT_TRUE(test::close(s.y, std::vector<double>{2, -6, 0, 0, 16.0F / 3, kNaN}, {}));
    EXPECT_EQ(s.d_x, (std::vector<float>{5, 10, 0, 0, 2, 3,  //
                                         5, 10, 0, 0, 2, 3,  //
                                         0, 0, 0, 0, 2, 3}));
  }
}

TEST(Pooling, MaxGivesAllToItsFirstLargestStep) {
  Problem p = kByHand;
  p.kind = Pooling::max;
  p.before = std::vector<double>(18, 1.0);
  for (const Device& device : test::devices()) {
    const auto s = solve<bf16>(device, p);
    EXPECT_TRUE(test::close(s.y, std::vector<double>{3, -4, 0, 0, 7, kNaN}, {}));
    EXPECT_EQ(s.chosen, (std::vector<std::int32_t>{1, 0, -1, -1, 1, 1}));
    EXPECT_EQ(test::as_double(s.d_x), (std::vector<double>{1, 21, 1, 1, 1, 1,   //
                                                           11, 1, 1, 1, 7, 10,  //
                                                           1, 1, 1, 1, 1, 1}));
  }
}

// Leg 2: both are linear between ties, so that central differences have no error but rounding.
TEST(Pooling, BackwardAgreesWithCentralDifferencesInDouble) {
  for (const Pooling kind : kKinds) {
    const Problem p = random_problem({6, 4, 3}, kind, Fill::even, 5);
    const auto loss = [&](const std::vector<double>& x) {  // Σ d_y·y
      Problem moved = p;
      moved.x = x;
      const auto y = solve<double>(Cpu{}, moved).y;
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += p.d_y[i] * y[i];
      return sum;
    };
    const auto d_x = solve<double>(Cpu{}, p).d_x;
    for (std::size_t i = 0; i < p.x.size(); ++i) {
      auto up = p.x, down = p.x;
      up[i] += 1e-4;
      down[i] -= 1e-4;
      EXPECT_NEAR(d_x[i], (loss(up) - loss(down)) / 2e-4, 1e-10) << "x[" << i << "]";
    }
  }
}

// Leg 3: every device, type and size against the oracle. Nothing, one, around a vector, the steps in
// flight, a tile of steps, a warp and a block of units, and the states of a small model.
const std::vector<Size> kSizes{
    {0, 2, 3},    {12, 0, 4},   {6, 3, 0},    {1, 1, 1},   {2, 3, 4},   {3, 2, 5},    {4, 1, 8},
    {5, 3, 7},    {7, 2, 9},    {8, 2, 31},   {9, 5, 33},  {15, 1, 64}, {16, 2, 65},  {17, 3, 12},
    {33, 1, 255}, {31, 2, 256}, {18, 1, 257}, {5, 2, 520}, {48, 9, 4},  {1024, 2, 5}, {64, 9, 128}};

struct Worst {
  double forward = 0, backward = 0;
};

template <class T>
Worst sweep_excess(const Device& device, const Tolerance& forward, const Tolerance& backward) {
  Worst worst;
  std::uint64_t seed = 100;
  for (const Size& size : kSizes) {
    for (const Fill fill : {Fill::even, Fill::positive, Fill::ties}) {
      for (const Pooling kind : kKinds) {
        for (const bool accumulate : {false, true}) {
          Problem p = random_problem(size, kind, fill, ++seed / 2);
          p.x = test::as_double(test::stored<T>(p.x));
          p.d_y = test::as_double(test::stored<T>(p.d_y));
          std::mt19937_64 random(seed);
          if (accumulate) {
            p.before =
                test::as_double(test::stored<T>(random_values(p.x.size(), Fill::even, random)));
          }
          const Solution<T> got = solve<T>(device, p);
          const reference::Pooled want = oracle(p);
          const auto& limit = kind == Pooling::max ? Tolerance{} : forward;
          EXPECT_TRUE(test::close(got.y, want.y, limit)) << "seed " << seed;
          EXPECT_EQ(got.chosen, want.chosen) << "seed " << seed;
          EXPECT_TRUE(test::close(got.d_x, want.d_x, backward)) << "seed " << seed;
          if (kind == Pooling::mean) {
            worst.forward = std::max(worst.forward, test::worst_excess(got.y, want.y, limit));
          }
          worst.backward =
              std::max(worst.backward, test::worst_excess(got.d_x, want.d_x, backward));
        }
      }
    }
  }
  return worst;
}

template <class T>
void sweep(const Tolerance& forward, const Tolerance& backward) {
  Worst worst;
  for (const Device& device : test::devices()) {
    const Worst here = sweep_excess<T>(device, forward, backward);
    worst.forward = std::max(worst.forward, here.forward);
    worst.backward = std::max(worst.backward, here.backward);
  }
  test::expect_recorded(worst.forward, forward);
  test::expect_recorded(worst.backward, backward);
}

TEST(Pooling, SweepStaysWithinItsTolerances) {
  sweep<float>(kPoolingForwardTolerance.f32, kPoolingBackwardTolerance.f32);
  sweep<bf16>(kPoolingForwardTolerance.bf16, kPoolingBackwardTolerance.bf16);
}

TEST(Pooling, CountsStepsBeyondSixteenBits) {
  for (const Device& device : test::devices()) {
    for (const Pooling kind : kKinds) {  // sums of integers are exact
      Problem p = random_problem({70'000, 2, 3}, kind, Fill::ties, 3);
      p.length = {69'999, 70'000};
      for (double& x : p.x) x = std::isnan(x) ? 1 : x;
      for (std::size_t h = 0; h < 3; ++h) p.x[(69'998 * 2 + h % 2) * 3 + h] = 100;
      const auto got = solve<float>(device, p);
      const auto want = oracle(p);
      EXPECT_TRUE(test::close(got.y, want.y, kPoolingForwardTolerance.f32));
      EXPECT_EQ(got.chosen, want.chosen);
      EXPECT_TRUE(test::close(got.d_x, want.d_x, kPoolingBackwardTolerance.f32));
    }
  }
}

// Leg 4: the contract on bad input.
TEST(Pooling, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 24);
  const Buffer<std::int32_t> integers(Cpu{}, 24);
  struct Case {
    std::array<std::int64_t, 2> state{3, 4}, chosen{0, 0};
    Pooling kind = Pooling::mean;
    std::int64_t length = 3, steps = 2;
  };
  const auto check = [&](const Case& c) {
    const View<float, 3> x(numbers.view(24).data, {c.steps, 3, 4});
    const View<float, 2> y(numbers.view(24).data, c.state);
    const View<std::int32_t, 1> length(integers.view(24).data, {c.length});
    const View<std::int32_t, 2> chosen(integers.view(24).data, c.chosen);
    const auto refused = [](const auto& op) {
      try {
        op.check();
      } catch (const ShapeError&) {
        return true;
      }
      return false;
    };
    const bool forward = refused(
        PoolingForward<float>{.x = x, .length = length, .kind = c.kind, .y = y, .chosen = chosen});
    const bool backward = refused(PoolingBackward<float>{
        .d_y = y, .length = length, .kind = c.kind, .chosen = chosen, .d_x = {x}});
    EXPECT_EQ(forward, backward);
    return forward;
  };
  EXPECT_FALSE(check({}));
  EXPECT_FALSE(check({.chosen = {3, 4}, .kind = Pooling::max}));
  for (const Case& bad : {Case{.state = {2, 4}}, Case{.state = {3, 5}}, Case{.chosen = {3, 4}},
                          Case{.kind = Pooling::max}, Case{.chosen = {3, 3}, .kind = Pooling::max},
                          Case{.chosen = {2, 4}, .kind = Pooling::max}, Case{.length = 2},
                          Case{.steps = std::int64_t{1} << 31}}) {
    EXPECT_TRUE(check(bad));
  }
}

TEST(Pooling, AChosenStepOutsideItsRowGetsNothing) {
  for (const Device& device : test::devices()) {
    const Buffer<float> d_y(device, std::vector<float>(4, 5.0F)), d_x(device, 8);
    const Buffer<std::int32_t> length(device, std::vector<std::int32_t>{1});
    const Buffer<std::int32_t> chosen(device, std::vector<std::int32_t>{0, 1, -1, 7});
    run(device, PoolingBackward<float>{.d_y = d_y.view(1, 4),
                                       .length = length.view(1),
                                       .kind = Pooling::max,
                                       .chosen = chosen.view(1, 4),
                                       .d_x = {d_x.view(2, 1, 4)}});
    EXPECT_EQ(d_x.read(), (std::vector<float>{5, 0, 0, 0, 0, 0, 0, 0}));
  }
}

TEST(Pooling, ANaNOrAnInfinityReachesItsOwnUnitAlone) {
  for (const Device& device : test::devices()) {
    for (const double odd : {kNaN, HUGE_VAL, -HUGE_VAL}) {
      for (const Pooling kind : kKinds) {
        Problem p = random_problem({9, 2, 6}, kind, Fill::even, 8);
        p.x[(4 * 2 + 1) * 6 + 3] = odd;  // t = 4, b = 1, h = 3
        p.d_y[1 * 6 + 2] = odd;
        const auto got = solve<float>(device, p);
        const auto want = oracle(p);
        EXPECT_TRUE(test::close(got.y, want.y, kPoolingForwardTolerance.f32));
        EXPECT_EQ(got.chosen, want.chosen);
        EXPECT_TRUE(test::close(got.d_x, want.d_x, kPoolingBackwardTolerance.f32));
      }
    }
  }
}

// Leg 5: invariants.
TEST(Pooling, EveryDeviceAndNumberOfThreadsGivesTheSameBits) {
  const int threads = omp_get_max_threads();
  for (const Pooling kind : kKinds) {
    for (const Fill fill : {Fill::positive, Fill::ties}) {
      Problem p = random_problem({70, 9, 301}, kind, fill, 21);
      p.before = std::vector<double>(p.x.size(), -0.0);
      omp_set_num_threads(1);
      const auto want = solve<float>(Cpu{}, p);
      omp_set_num_threads(3);
      const auto three = solve<float>(Cpu{}, p);
      omp_set_num_threads(threads);
      EXPECT_EQ(bits(three.y), bits(want.y));
      EXPECT_EQ(bits(three.d_x), bits(want.d_x));
      for (const Device& device : test::devices()) {
        const auto got = solve<float>(device, p);
        EXPECT_EQ(bits(got.y), bits(want.y)) << test::device_name(device);
        EXPECT_EQ(bits(got.d_x), bits(want.d_x)) << test::device_name(device);
      }
    }
  }
}

TEST(Pooling, AMeanLiesBelowItsMaximumAndTheMaximumsGradientIsKeptWhole) {
  for (const Device& device : test::devices()) {
    Problem p = random_problem({13, 5, 40}, Pooling::mean, Fill::ties, 41);
    const auto mean = solve<float>(device, p);
    p.kind = Pooling::max;
    const auto max = solve<float>(device, p);
    for (std::size_t i = 0; i < mean.y.size(); ++i) {
      EXPECT_LE(mean.y[i], max.y[i]);
      float sum = 0;  // over time: of one number and zeros
      for (std::size_t t = 0; t < p.steps; ++t) sum += max.d_x[t * mean.y.size() + i];
      EXPECT_EQ(sum, p.length[i / p.width] > 0 ? static_cast<float>(p.d_y[i]) : 0.0F);
    }
  }
}

}  // namespace
}  // namespace carousel
