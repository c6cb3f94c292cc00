// The running mean of weights.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/weight_update/weight_update.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;

/// A mean on a device that begins with NaN, `shift` elements from an aligned address.
template <class T>
struct Mean {
  Mean(const Device& on, std::size_t count, std::size_t from_aligned = 0)
      : device(on),
        size(count),
        shift(from_aligned),
        average(on, std::vector<T>(shift + count, static_cast<T>(NAN))) {}

  void step(const std::vector<T>& weights, std::int64_t t, std::int64_t begun,
            std::int32_t is_finite = 1) const {
    const Buffer<T> weight(device, weights);
    const Buffer<std::int64_t> number(device, std::vector{t}), first(device, std::vector{begun});
    const Buffer<std::int32_t> finite(device, std::vector{is_finite});
    run(device, WeightAverage<T>{.weight = weight.view(size),
                                 .average = {average.view(shift + size).data + shift,
                                             {static_cast<std::int64_t>(size)}},
                                 .step = number.view(1),
                                 .first = first.view(1),
                                 .finite = finite.view(1)});
  }
  std::vector<T> read() const {
    const auto all = average.read();
    for (std::size_t i = 0; i < shift; ++i) EXPECT_TRUE(std::isnan(all[i]));
    return {all.begin() + static_cast<std::ptrdiff_t>(shift), all.end()};
  }

  Device device;
  std::size_t size, shift;
  Buffer<T> average;
};

template <class T>
std::vector<T> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(count);
  for (T& v : values) v = static_cast<T>(normal(random));
  return values;
}

class WeightAverageOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, WeightAverageOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(WeightAverageOn, IsAsWorkedByHand) {
  const Mean<float> mean(GetParam(), 2);
  const std::vector<std::vector<float>> weights{{1, 8}, {2, 8}, {6, -4}, {7, 16}};
  const std::vector<std::vector<float>> want{{1, 8}, {1.5F, 8}, {3, 4}, {4, 7}};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    mean.step(weights[i], static_cast<std::int64_t>(41 + i), 41);
    EXPECT_TRUE(test::close(mean.read(), as_double(want[i]), {.relative = 2e-7}));
  }
}

/// The worst excess of each step, from what the step before left, over `steps` steps.
template <class T>
double worst_excess(const Device& device, std::size_t size, const Tolerance& tolerance,
                    unsigned steps = 12) {
  const Mean<T> mean(device, size, size % 2);
  std::vector<double> before(size);
  double worst = 0;
  for (unsigned t = 1; t <= steps; ++t) {
    const auto weights = random_values<T>(size, t);
    mean.step(weights, 6 + t, 7);
    for (std::size_t i = 0; i < size; ++i) {
      before[i] = (before[i] * (t - 1) + static_cast<double>(weights[i])) / t;
    }
    worst = std::max(worst, test::worst_excess(mean.read(), before, tolerance));
    before = as_double(mean.read());
  }
  return worst;
}

TEST_P(WeightAverageOn, IsTheMeanAtEverySize) {
  // None, one, around a thread's eight, a warp and a block's 2,048.
  for (const std::size_t size : {0, 1, 7, 8, 9, 33, 2047, 2049, 70'001}) {
    EXPECT_LE(worst_excess<float>(GetParam(), size, WeightAverage<float>::kTolerance), 1) << size;
  }
}

TEST(WeightAverage, IsTheMeanInDouble) {
  EXPECT_LE(worst_excess<double>(Cpu{}, 100, {.absolute = 1e-15, .relative = 1e-15}), 1);
}

TEST(WeightAverage, SweepStaysWithinItsTolerance) {
  double worst = 0;
  for (const Device& device : test::devices()) {
    worst =
        std::max(worst, worst_excess<float>(device, 5000, WeightAverage<float>::kTolerance, 40));
  }
  test::expect_recorded(worst, WeightAverage<float>::kTolerance);
}

TEST_P(WeightAverageOn, WritesNothingBeforeItsFirstStepNorAfterABadOne) {
  const Mean<float> mean(GetParam(), 1000);
  const auto untouched = [&] {
    for (const float value : mean.read()) ASSERT_TRUE(std::isnan(value));
  };
  const std::vector<float> weights(1000, 2);
  mean.step(weights, 5, 0);  // not begun
  untouched();
  mean.step(weights, 5, 6);
  untouched();
  mean.step(weights, 6, 6, /*is_finite=*/0);
  untouched();
  mean.step(weights, 6, 6);
  EXPECT_EQ(mean.read(), weights);
  mean.step(std::vector<float>(1000, 100), 7, 6, /*is_finite=*/0);
  EXPECT_EQ(mean.read(), weights);
}

TEST_P(WeightAverageOn, NaNIsNotSilent) {
  const Mean<float> mean(GetParam(), 2);
  mean.step({1, 1}, 1, 1);
  mean.step({NAN, 3}, 2, 1);
  EXPECT_TRUE(std::isnan(mean.read()[0]));
  EXPECT_EQ(mean.read()[1], 2.0F);
  mean.step({1, 2}, 3, 1);
  EXPECT_TRUE(std::isnan(mean.read()[0])) << "and stays";
}

TEST(WeightAverage, RefusesWrongArguments) {
  const Device cpu = Cpu{};
  const Buffer<float> a(cpu, 4), b(cpu, 4);
  const Buffer<std::int64_t> number(cpu, 2);
  const Buffer<std::int32_t> finite(cpu, 2);
  const WeightAverage<float> good{.weight = a.view(4),
                                  .average = b.view(4),
                                  .step = number.view(1),
                                  .first = number.view(1),
                                  .finite = finite.view(1)};
  EXPECT_NO_THROW(good.check());
  const auto refuses = [&](const auto& change) {
    auto op = good;
    change(op);
    EXPECT_THROW(op.check(), ShapeError);
  };
  refuses([&](auto& op) { op.average = b.view(3); });
  refuses([&](auto& op) { op.step = {}; });
  refuses([&](auto& op) { op.first = number.view(2); });
  refuses([&](auto& op) { op.finite = finite.view(2); });
}

}  // namespace
}  // namespace carousel
