#include "kernels/rope/rope.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/rope.h"
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
  std::int64_t steps = 1, batch = 1, columns = 0;
  std::int64_t first = 0, heads = 1, head_width = 2;
  double base = 10'000;
  RopePairs pairs = RopePairs::halves;
  bool inverse = false;
  std::vector<std::int64_t> offset{};  ///< empty: absent
  Numbers x{};
  Numbers before{};  ///< what y is added to; empty: it is overwritten

  std::size_t size() const { return static_cast<std::size_t>(steps * batch * columns); }
};

template <class T>
Rope<T> op_of(const Problem& p, const Buffer<T>& x, const Buffer<T>& y,
              const Buffer<std::int64_t>& offset) {
  return {.x = x.view(p.steps, p.batch, p.columns),
          .offset = p.offset.empty() ? View<std::int64_t, 1>{} : offset.view(p.offset.size()),
          .first = p.first,
          .heads = p.heads,
          .head_width = p.head_width,
          .base = p.base,
          .pairs = p.pairs,
          .inverse = p.inverse,
          .y = {y.view(p.steps, p.batch, p.columns), !p.before.empty()}};
}

template <class T>
Numbers solve(const Device& device, const Problem& p) {
  const Buffer<T> x(device, test::stored<T>(p.x)),
      y = test::gradient_buffer<T>(device, p.before, p.size());
  const Buffer<std::int64_t> offset(device, p.offset);
  run(device, op_of(p, x, y, offset));
  return test::as_double(y.read());
}

Numbers oracle(const Problem& p) {
  Numbers y = p.x;
  for (std::int64_t row = 0; row < p.steps * p.batch; ++row) {
    const auto b = static_cast<std::size_t>(row % p.batch);
    const auto position = static_cast<double>(row / p.batch + (p.offset.empty() ? 0 : p.offset[b]));
    for (std::int64_t head = 0; head < p.heads; ++head) {
      const auto at = p.x.begin() + row * p.columns + p.first + head * p.head_width;
      const Numbers turned =
          reference::rope(Numbers(at, at + p.head_width), p.inverse ? -position : position, p.base,
                          p.pairs == RopePairs::neighbours);
      std::copy(turned.begin(), turned.end(), y.begin() + (at - p.x.begin()));
    }
  }
  for (std::size_t i = 0; i < p.before.size(); ++i) y[i] += p.before[i];
  return y;
}

template <class T>
Problem filled(Problem p, bool accumulate) {
  p.x = random_numbers<T>(p.size(), 1, static_cast<unsigned>(p.size() + 1));
  if (accumulate) p.before = random_numbers<T>(p.size(), 1, static_cast<unsigned>(p.size() + 2));
  return p;
}

// Leg 1: with base 10⁴ and D = 4 the pairs turn by 1 and 1/100 a step.
TEST(Rope, ARowWorkedByHand) {
  for (const Device& device : test::devices()) {
    Problem p{.steps = 1, .columns = 6, .first = 1, .head_width = 4, .offset = {2}};
    p.x = {7, 1, 0, 0, 2, 9};
    constexpr Tolerance kExact{.absolute = 1e-6};
    EXPECT_TRUE(test::close(
        solve<float>(device, p),
        Numbers{7, std::cos(2), -2 * std::sin(0.02), std::sin(2), 2 * std::cos(0.02), 9}, kExact));
    p.pairs = RopePairs::neighbours;
    EXPECT_TRUE(test::close(
        solve<float>(device, p),
        Numbers{7, std::cos(2), std::sin(2), -2 * std::sin(0.02), 2 * std::cos(0.02), 9}, kExact));
    p.offset = {0};
    EXPECT_EQ(solve<float>(device, p), p.x);
  }
}

std::vector<Problem> problems() {
  std::vector<Problem> result;
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::neighbours}) {
    for (const bool inverse : {false, true}) {
      const auto add = [&](Problem p) {
        p.pairs = pairs, p.inverse = inverse;
        result.push_back(p);
      };
      add({.steps = 0, .columns = 4, .head_width = 4});
      add({.steps = 3, .batch = 2, .columns = 5, .heads = 0});
      add({.steps = 3, .batch = 2, .columns = 2});
      add({.steps = 5, .batch = 3, .columns = 20, .first = 3, .heads = 2, .head_width = 6});
      add({.steps = 2,
           .batch = 3,
           .columns = 14,
           .heads = 2,
           .head_width = 6,
           .offset = {0, 1, 9}});
      add({.steps = 1,
           .batch = 2,
           .columns = 66,
           .head_width = 66,
           .offset = {70'000, 16'777'215}});
      add({.steps = 33, .batch = 4, .columns = 384, .heads = 8, .head_width = 32});
      add({.steps = 40, .columns = 300, .first = 7, .heads = 1, .head_width = 256, .base = 500});
    }
  }
  return result;
}

// Leg 2: the gradient of Σ d ∘ y is d turned back.
TEST(Rope, TurningBackIsTheGradientInDouble) {
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::neighbours}) {
    Problem p{.steps = 3, .batch = 2, .columns = 11, .first = 2, .heads = 2, .head_width = 4};
    p.pairs = pairs;
    p.offset = {5, 0};
    p = filled<double>(p, false);
    const Numbers d = random_numbers<double>(p.size(), 1, 5);
    const Numbers want = test::central_differences(p.x, [&](const Numbers& x) {
      Problem moved = p;
      moved.x = x;
      return test::dot(solve<double>(Cpu{}, moved), d);
    });
    Problem back = p;
    back.x = d;
    back.inverse = true;
    EXPECT_TRUE(test::close(solve<double>(Cpu{}, back), want, {.absolute = 1e-9}));
  }
}

// Leg 3.
template <class T>
void sweep(const Tolerance& tolerance) {
  double worst = 0;
  for (const Problem& shape : problems()) {
    for (const bool accumulate : {false, true}) {
      const Problem p = filled<T>(shape, accumulate);
      const Numbers want = oracle(p);
      for (const Device& device : test::devices()) {
        const Numbers got = solve<T>(device, p);
        EXPECT_TRUE(test::close(got, want, tolerance))
            << test::device_name(device) << ", " << p.columns << " columns";
        worst = std::max(worst, test::worst_excess(got, want, tolerance));
      }
    }
  }
  test::expect_recorded(worst, tolerance);
}

TEST(Rope, SweepStaysWithinItsTolerance) {
  sweep<float>(kRopeTolerance.f32);
  sweep<bf16>(kRopeTolerance.bf16);
}

// Leg 4: the contract on bad input.
TEST(Rope, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 100);
  const Buffer<std::int64_t> offsets(Cpu{}, 9);
  float* const data = numbers.view(100).data;
  const auto good = [&] {
    return Rope<float>{.x = {data, {2, 3, 10}},
                       .offset = offsets.view(9),
                       .first = 1,
                       .heads = 2,
                       .head_width = 4,
                       .y = {{data, {2, 3, 10}}}};
  };
  Rope<float> op = good();
  op.offset.extent = {3};
  EXPECT_NO_THROW(op.check());
  const auto refuses = [&](const auto& spoil) {
    Rope<float> bad = op;
    spoil(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  for (const int axis : {0, 1, 2}) {
    refuses([axis](auto& bad) { ++bad.y.view.extent[static_cast<std::size_t>(axis)]; });
  }
  refuses([](auto& bad) { bad.offset.extent = {2}; });
  refuses([](auto& bad) { bad.first = -1; });
  refuses([](auto& bad) { bad.first = 3; });
  refuses([](auto& bad) { bad.heads = -1; });
  refuses([](auto& bad) { bad.heads = 3; });
  refuses([](auto& bad) { bad.head_width = 3; });
  refuses([](auto& bad) { bad.head_width = 0; });
  for (const double base : {1.0, -3.0, static_cast<double>(NAN)}) {
    op.base = base;
    EXPECT_THROW(op.check(), ConfigError);
  }
}

// Leg 5: invariants.
TEST(Rope, AProductDependsOnTheDistanceAloneAndLengthsStay) {
  for (const Device& device : test::devices()) {
    for (const RopePairs pairs : {RopePairs::halves, RopePairs::neighbours}) {
      const auto at = [&](std::int64_t position, unsigned seed) {
        return solve<float>(device, {.columns = 64,
                                     .head_width = 64,
                                     .pairs = pairs,
                                     .offset = {position},
                                     .x = random_numbers<float>(64, 1, seed)});
      };
      const double near = test::dot(at(12, 1), at(5, 2)),
                   far = test::dot(at(1'012, 1), at(1'005, 2));
      EXPECT_NEAR(near, far, 1e-5);
      EXPECT_GT(std::abs(near - test::dot(at(13, 1), at(5, 2))), 1e-3);
      EXPECT_NEAR(test::dot(at(99, 1), at(99, 1)), test::dot(at(0, 1), at(0, 1)), 1e-5);
    }
  }
}

TEST(Rope, WorksInPlaceAndForEveryNumberOfThreadsWithTheSameBits) {
  const int threads = omp_get_max_threads();
  for (const Problem& shape : problems()) {
    const Problem p = filled<float>(shape, false);
    for (const Device& device : test::devices()) {
      omp_set_num_threads(1);
      const Numbers want = solve<float>(device, p);
      omp_set_num_threads(3);
      const Buffer<float> x(device, test::stored<float>(p.x));
      const Buffer<std::int64_t> offset(device, p.offset);
      run(device, op_of(p, x, x, offset));
      omp_set_num_threads(threads);
      EXPECT_EQ(test::as_double(x.read()), want);
    }
  }
}

TEST(Rope, ANaNReachesItsPairAlone) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Problem p{.columns = 6, .head_width = 6, .offset = {3}, .x = {1, NAN, 3, 4, 5, 6}};
    const Numbers got = solve<T>(device, p);
    for (std::size_t c = 0; c < 6; ++c) EXPECT_EQ(std::isnan(got[c]), c % 3 == 1) << c;
  });
}

}  // namespace
}  // namespace carousel
