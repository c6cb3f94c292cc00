#include "kernels/global_norm/global_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/global_norm.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;

struct Result {
  float norm, scale;
  std::int32_t finite;
};

struct Options {
  double clip_norm = 0;
  std::vector<float> loss{};
  std::optional<std::int32_t> before{};  ///< what `finite` holds, with keep_failure
  std::size_t shift = 0;                 ///< elements from an aligned address
};

Result norm_of(const Device& device, const std::vector<float>& gradient, const Options& o = {}) {
  std::vector<float> padded(o.shift, NAN);
  padded.insert(padded.end(), gradient.begin(), gradient.end());
  Buffer<float> g(device, padded), norm(device, 1), scale(device, 1);
  Buffer<float> loss(device, o.loss);
  Buffer<std::int32_t> finite(device, std::vector<std::int32_t>{o.before.value_or(7)});
  Buffer<double> scratch(device, kGlobalNormPartials);
  run(device,
      GlobalNorm<float>{.gradient = {g.view(padded.size()).data + o.shift,
                                     {static_cast<std::int64_t>(gradient.size())}},
                        .loss = o.loss.empty() ? View<const float, 1>{} : loss.view(o.loss.size()),
                        .clip_norm = o.clip_norm,
                        .keep_failure = o.before.has_value(),
                        .scratch = scratch.view(kGlobalNormPartials),
                        .norm = norm.view(1),
                        .gradient_scale = scale.view(1),
                        .finite = finite.view(1)});
  return {norm.read()[0], scale.read()[0], finite.read()[0]};
}

std::vector<float> random_gradient(std::size_t count, double magnitude, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, magnitude);
  std::vector<float> gradient(count);
  for (float& g : gradient) g = static_cast<float>(normal(random));
  return gradient;
}

class GlobalNormOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, GlobalNormOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(GlobalNormOn, ThreeFourGivesFive) {  // worked by hand
  const Result r = norm_of(GetParam(), {3, -4}, {.clip_norm = 2, .loss = {1.5F}});
  EXPECT_EQ(r.norm, 5.0F);
  EXPECT_FLOAT_EQ(r.scale, 0.4F);
  EXPECT_EQ(r.finite, 1);
}

// As if the rows in use were part of the flat gradient; the others are not even read.
TEST_P(GlobalNormOn, CountsTheUsedRowsOfRowSparseGradients) {
  struct Rows {
    std::size_t capacity, width;
    std::int32_t used;
  };
  // None of none, none of some, part of a stretch, all, and several stretches of which some are used.
  const std::vector<Rows> cases{{0, 3, 0}, {5, 3, 0}, {5, 3, 2}, {70, 64, 70}, {3000, 65, 200}};
  const auto dense = random_gradient(777, 1, 1);
  std::vector<double> all = test::as_double(dense);
  std::vector<Buffer<float>> values;
  std::vector<Buffer<std::int32_t>> counts;
  std::vector<RowSparseGradient<float>> row_sparse;
  for (const Rows& rows : cases) {
    auto gradient = random_gradient(rows.capacity * rows.width, 1, 2);
    const std::size_t used = static_cast<std::size_t>(rows.used) * rows.width;
    std::fill(gradient.begin() + static_cast<std::ptrdiff_t>(used), gradient.end(), NAN);
    all.insert(all.end(), gradient.begin(), gradient.begin() + static_cast<std::ptrdiff_t>(used));
    values.emplace_back(GetParam(), gradient);
    counts.emplace_back(GetParam(), std::vector<std::int32_t>{rows.used});
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    row_sparse.push_back({values[i].view(cases[i].capacity, cases[i].width), counts[i].view(1)});
  }
  const Buffer<float> gradient(GetParam(), dense), norm(GetParam(), 1), scale(GetParam(), 1);
  const Buffer<std::int32_t> finite(GetParam(), 1);
  const std::size_t partials = kGlobalNormPartials * (1 + cases.size());
  const Buffer<double> scratch(GetParam(), partials);
  GlobalNorm<float> op{.gradient = gradient.view(777),
                       .row_sparse = row_sparse,
                       .clip_norm = 2,
                       .scratch = scratch.view(partials),
                       .norm = norm.view(1),
                       .gradient_scale = scale.view(1),
                       .finite = finite.view(1)};
  run(GetParam(), op);
  const double want = reference::global_norm(all);
  EXPECT_TRUE(test::close(norm.read(), std::vector<double>{want}, kGlobalNormTolerance));
  EXPECT_TRUE(test::close(scale.read(), std::vector<double>{reference::gradient_scale(want, 2)},
                          kGlobalNormTolerance));
  EXPECT_EQ(finite.read()[0], 1);
  op.scratch = scratch.view(kGlobalNormPartials);
  EXPECT_THROW(op.check(), ShapeError);
  op.scratch = scratch.view(partials);
  row_sparse[1].row_count = {};
  EXPECT_THROW(op.check(), ShapeError);
}

TEST_P(GlobalNormOn, SmallGradientsAreNotScaledUp) {
  EXPECT_EQ(norm_of(GetParam(), {3, -4}, {.clip_norm = 6}).scale, 1.0F);
  EXPECT_EQ(norm_of(GetParam(), {0, 0}, {.clip_norm = 1}).scale, 1.0F);
  EXPECT_EQ(norm_of(GetParam(), {300, -400}).scale, 1.0F) << "clipping is off";
}

TEST_P(GlobalNormOn, MatchesTheOracleAtAwkwardSizes) {
  // None, one, around a vector, a warp, a block, a stretch, and enough for longer stretches.
  for (const std::size_t size : {0, 1, 3, 31, 33, 255, 257, 4095, 4096, 4097, 12'291}) {
    for (const std::size_t shift : {0, 1}) {
      const auto gradient = random_gradient(size, 0.1, 11 + static_cast<unsigned>(size));
      const double want = reference::global_norm(as_double(gradient));
      const Result r = norm_of(GetParam(), gradient, {.clip_norm = 0.5, .shift = shift});
      EXPECT_TRUE(test::close(std::vector{r.norm}, std::vector{want}, kGlobalNormTolerance));
      EXPECT_TRUE(test::close(std::vector{r.scale},
                              std::vector{reference::gradient_scale(want, 0.5)},
                              kGlobalNormTolerance));
      EXPECT_EQ(r.finite, 1);
    }
  }
}

TEST(GlobalNorm, StretchesGrowWhenThePartialSumsRunOut) {
  const auto gradient = random_gradient(5'000'003, 1e-3, 3);
  for (const Device& device : test::devices()) {
    const Result r = norm_of(device, gradient);
    EXPECT_TRUE(test::close(std::vector{r.norm},
                            std::vector{reference::global_norm(as_double(gradient))},
                            kGlobalNormTolerance));
  }
}

TEST_P(GlobalNormOn, IsRightOverTheWholeRangeOfFloat) {
  for (const float g : {1e-45F, 1e-30F, 1e-20F, 1e20F, 1e30F, 1e38F}) {
    const Result r = norm_of(GetParam(), {g, g, -g, g});
    EXPECT_EQ(r.norm, 2 * g);
    EXPECT_EQ(r.finite, 1);
  }
  const Result beyond = norm_of(GetParam(), std::vector<float>(16, 3e38F), {.clip_norm = 1});
  EXPECT_EQ(beyond.norm, INFINITY);
  EXPECT_EQ(beyond.finite, 0);
}

TEST_P(GlobalNormOn, OneBadNumberIsNeverSilent) {
  for (const std::size_t at : {0, 4095, 4096, 9999}) {
    auto gradient = random_gradient(10'000, 1, 5);
    gradient[at] = NAN;
    const Result nan = norm_of(GetParam(), gradient, {.clip_norm = 1, .loss = {0}});
    EXPECT_TRUE(std::isnan(nan.norm));
    EXPECT_TRUE(std::isnan(nan.scale));
    EXPECT_EQ(nan.finite, 0);
    gradient[at] = -INFINITY;
    const Result infinite = norm_of(GetParam(), gradient, {.clip_norm = 1});
    EXPECT_EQ(infinite.norm, INFINITY);
    EXPECT_EQ(infinite.finite, 0);
  }
  for (const float loss : {NAN, INFINITY, -INFINITY}) {
    for (std::size_t at = 0; at < 3; ++at) {  // whichever term of an objective it is
      std::vector<float> losses{1, 2, 3};
      EXPECT_EQ(norm_of(GetParam(), {3, 4}, {.loss = losses}).finite, 1);
      losses[at] = loss;
      const Result r = norm_of(GetParam(), {3, 4}, {.loss = losses});
      EXPECT_EQ(r.norm, 5.0F);
      EXPECT_EQ(r.finite, 0);
    }
  }
}

TEST_P(GlobalNormOn, AFailureIsKeptOnlyWhereAskedFor) {
  EXPECT_EQ(norm_of(GetParam(), {3, 4}, {.before = 0}).finite, 0);
  EXPECT_EQ(norm_of(GetParam(), {3, 4}, {.before = 1}).finite, 1);
  EXPECT_EQ(norm_of(GetParam(), {NAN, 4}, {.before = 1}).finite, 0);
  EXPECT_EQ(norm_of(GetParam(), {3, 4}).finite, 1);
}

// An invariant that needs no oracle: scaling by a power of two scales the norm exactly.
TEST_P(GlobalNormOn, ScalesWithItsArgument) {
  const auto gradient = random_gradient(9001, 1, 23);
  const float norm = norm_of(GetParam(), gradient).norm;
  for (const float factor : {0x1p-60F, 0x1p-3F, 0x1p90F}) {
    auto scaled = gradient;
    for (float& g : scaled) g *= factor;
    EXPECT_EQ(norm_of(GetParam(), scaled).norm, norm * factor);
  }
}

TEST(GlobalNorm, WorksInDoubleOnTheCpu) {
  const Device cpu = Cpu{};
  Buffer<double> g(cpu, std::vector<double>{1, 2, 2}), norm(cpu, 1), scale(cpu, 1);
  Buffer<double> scratch(cpu, kGlobalNormPartials);
  Buffer<std::int32_t> finite(cpu, 1);
  run(cpu, GlobalNorm<double>{.gradient = g.view(3),
                              .clip_norm = 1,
                              .scratch = scratch.view(kGlobalNormPartials),
                              .norm = norm.view(1),
                              .gradient_scale = scale.view(1),
                              .finite = finite.view(1)});
  EXPECT_EQ(norm.read()[0], 3);
  EXPECT_DOUBLE_EQ(scale.read()[0], 1 / 3.000001);
}

TEST(GlobalNorm, RefusesWrongArguments) {
  const Device cpu = Cpu{};
  Buffer<float> values(cpu, 4);
  Buffer<double> scratch(cpu, kGlobalNormPartials);
  Buffer<std::int32_t> finite(cpu, 1);
  const GlobalNorm<float> good{.gradient = values.view(4),
                               .scratch = scratch.view(kGlobalNormPartials),
                               .norm = {values.view(4).data, {1}},
                               .gradient_scale = {values.view(4).data, {1}},
                               .finite = finite.view(1)};
  EXPECT_NO_THROW(good.check());
  auto bad = good;
  bad.scratch.extent = {7};
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.norm = {};
  EXPECT_THROW(bad.check(), ShapeError);
  for (const double clip_norm : {-1.0, std::nan(""), HUGE_VAL}) {
    bad = good;
    bad.clip_norm = clip_norm;
    EXPECT_THROW(bad.check(), ConfigError);
  }
}

TEST(GlobalNorm, Sweep) {
  double worst = 0;
  for (const Device& device : test::devices()) {
    for (unsigned seed = 0; seed < 40; ++seed) {
      const auto gradient = random_gradient(1 + seed * seed * 9, std::exp2(seed) * 1e-6, seed);
      const double want = reference::global_norm(as_double(gradient));
      const Result r = norm_of(device, gradient, {.clip_norm = 0.7 * want});
      worst = std::max(worst, test::excess(r.norm, want, kGlobalNormTolerance));
      worst = std::max(worst, test::excess(r.scale, reference::gradient_scale(want, 0.7 * want),
                                           kGlobalNormTolerance));
    }
  }
  test::expect_recorded(worst, kGlobalNormTolerance);
}

}  // namespace
}  // namespace carousel
