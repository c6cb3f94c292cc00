#include "engine/training/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/memory.h"
#include "tests/reference/adam.h"
#include "tests/reference/global_norm.h"
#include "tests/reference/sgd.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::as_double;

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(normal(random));
  return values;
}

template <class T>
Tensor tensor(const Device& device, const std::vector<T>& values) {
  Tensor result(device, {static_cast<std::int64_t>(values.size())}, dtype_of<T>());
  copy_from_host(result, values.data());
  return result;
}

template <class T>
std::vector<T> read(const Tensor& from) {
  std::vector<T> values(static_cast<std::size_t>(from.size()));
  copy_to_host(from, values.data());
  return values;
}

/// The flat buffers of a model without a model.
struct Model {
  Model(const OptimizerConfig& config, const Device& device, const std::vector<float>& start)
      : weights(tensor(device, start)),
        gradients(device, weights.shape(), DType::f32),
        working(device, weights.shape(), DType::bf16),
        rate(device, {1}, DType::f32),
        step(device, {1}, DType::i64),
        loss(tensor<float>(device, {1})),
        optimizer(config, weights, gradients, working) {}

  void update(const std::vector<float>& gradient, std::int64_t number, float learning_rate) {
    copy_from_host(gradients, gradient.data());
    copy_from_host(rate, &learning_rate);
    copy_from_host(step, &number);
    optimizer.step(rate, step, loss);
  }

  /// Every bit that a step may change.
  std::vector<std::vector<float>> everything() const {
    std::vector<std::vector<float>> all{read<float>(weights)};
    for (const auto& [name, state] : optimizer.state()) all.push_back(read<float>(state));
    all.emplace_back();
    for (const bf16 w : read<bf16>(working)) all.back().push_back(w);
    return all;
  }

  Tensor weights, gradients, working, rate, step, loss;
  Optimizer optimizer;
};

class OptimizerOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, OptimizerOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

constexpr std::size_t kSize = 777;
const Tolerance kTwentySteps{.absolute = 4e-6, .relative = 4e-6};

TEST_P(OptimizerOn, AdamWWithAClippedNormFollowsTheOracleForTwentySteps) {
  const auto start = random_values(kSize, 1);
  Model model({.kind = "adamw", .weight_decay = 0.1, .clip_norm = 20}, GetParam(), start);
  reference::AdamOptimizer want({.weight_decay = 0.1, .decoupled = true}, as_double(start));
  for (unsigned t = 1; t <= 20; ++t) {
    const auto gradient = random_values(kSize, 10 + t);
    const double rate = 0.01 / t, norm = reference::global_norm(as_double(gradient));
    model.update(gradient, t, static_cast<float>(rate));
    want.set(rate, reference::gradient_scale(norm, 20));
    want.step(as_double(gradient), t);
    ASSERT_GT(norm, 20) << "the gradient was to be clipped";
    EXPECT_NEAR(read<float>(model.optimizer.gradient_norm())[0], norm, 1e-5);
  }
  EXPECT_TRUE(test::close(read<float>(model.weights), want.weight, kTwentySteps));
  EXPECT_EQ(read<std::int32_t>(model.optimizer.finite())[0], 1);
  const auto weights = read<float>(model.weights);
  const auto working = read<bf16>(model.working);
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(working[i].bits, bf16(weights[i]).bits);
}

TEST_P(OptimizerOn, AdamDecaysThroughTheGradient) {
  const auto start = random_values(kSize, 1);
  Model model({.kind = "adam", .beta1 = 0.8, .weight_decay = 0.1}, GetParam(), start);
  reference::AdamOptimizer want({.learning_rate = 0.01, .beta1 = 0.8, .weight_decay = 0.1},
                                as_double(start));
  for (unsigned t = 1; t <= 20; ++t) {
    const auto gradient = random_values(kSize, 10 + t);
    model.update(gradient, t, 0.01F);
    want.step(as_double(gradient), t);
  }
  EXPECT_TRUE(test::close(read<float>(model.weights), want.weight, kTwentySteps));
}

TEST_P(OptimizerOn, NesterovWithClippedValuesFollowsTheOracleForTwentySteps) {
  const auto start = random_values(kSize, 1);
  Model model({.kind = "sgd", .momentum = 0.9, .nesterov = true, .clip_value = 0.5}, GetParam(),
              start);
  reference::SgdOptimizer want(
      {.learning_rate = 0.01, .momentum = 0.9, .clip_value = 0.5, .nesterov = true},
      as_double(start));
  for (unsigned t = 1; t <= 20; ++t) {
    const auto gradient = random_values(kSize, 10 + t);
    model.update(gradient, t, 0.01F);
    want.step(as_double(gradient));
  }
  EXPECT_TRUE(test::close(read<float>(model.weights), want.weight, kTwentySteps));
}

TEST_P(OptimizerOn, ABadStepAndAllAfterItChangeNothing) {
  for (const char* kind : {"sgd", "adam", "adamw"}) {
    for (const bool bad_loss : {false, true}) {
      const double momentum = std::string(kind) == "sgd" ? 0.9 : 0;
      Model model({.kind = kind, .momentum = momentum, .weight_decay = 0.1, .clip_norm = 1},
                  GetParam(), random_values(kSize, 1));
      model.update(random_values(kSize, 2), 1, 0.1F);
      const auto before = model.everything();

      auto gradient = random_values(kSize, 3);
      if (!bad_loss) gradient[kSize - 1] = NAN;
      const float loss = bad_loss ? INFINITY : 1.0F, good_loss = 1;
      copy_from_host(model.loss, &loss);
      model.update(gradient, 2, 0.1F);
      EXPECT_EQ(model.everything(), before) << kind;
      EXPECT_EQ(read<std::int32_t>(model.optimizer.finite())[0], 0);
      EXPECT_EQ(std::isnan(read<float>(model.optimizer.gradient_norm())[0]), !bad_loss);

      copy_from_host(model.loss, &good_loss);
      model.update(random_values(kSize, 4), 3, 0.1F);
      EXPECT_EQ(model.everything(), before) << kind;
      EXPECT_EQ(read<std::int32_t>(model.optimizer.finite())[0], 0);
    }
  }
}

TEST_P(OptimizerOn, ContinuesFromItsStateBitForBit) {
  const OptimizerConfig config{.kind = "adamw", .weight_decay = 0.1, .clip_norm = 1};
  Model whole(config, GetParam(), random_values(kSize, 1));
  for (unsigned t = 1; t <= 3; ++t) whole.update(random_values(kSize, t), t, 0.1F);

  Model resumed(config, GetParam(), read<float>(whole.weights));
  const auto from = whole.optimizer.state(), to = resumed.optimizer.state();
  ASSERT_EQ(from.size(), 2);
  for (std::size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(from[i].first, to[i].first);
    copy_from_host(to[i].second, read<float>(from[i].second).data());
  }
  for (unsigned t = 4; t <= 6; ++t) {
    whole.update(random_values(kSize, t), t, 0.1F);
    resumed.update(random_values(kSize, t), t, 0.1F);
  }
  EXPECT_EQ(whole.everything(), resumed.everything());
}

TEST_P(OptimizerOn, AllocatesNothingAfterItsConstruction) {
  Model model({.kind = "adamw", .clip_norm = 1}, GetParam(), random_values(kSize, 1));
  const auto gradient = random_values(kSize, 2);
  const std::size_t before = memory_use(GetParam()).allocations;
  for (std::int64_t t = 1; t <= 3; ++t) model.update(gradient, t, 0.1F);
  EXPECT_EQ(memory_use(GetParam()).allocations, before);
}

TEST(Optimizer, KeepsOnlyTheStateItsKindNeeds) {
  const std::vector<float> start{1, 2};
  EXPECT_EQ(Model({.kind = "sgd"}, Cpu{}, start).optimizer.state().size(), 0);
  EXPECT_EQ(Model({.kind = "sgd", .momentum = 0.5}, Cpu{}, start).optimizer.state().size(), 1);
  EXPECT_EQ(Model({.kind = "adam"}, Cpu{}, start).optimizer.state().size(), 2);
}

TEST(Optimizer, RefusesWhatMakesNoSense) {
  const std::vector<float> start{1, 2};
  EXPECT_THROW(Model({.kind = "sdg"}, Cpu{}, start), ConfigError);
  const auto refuses_a_step = [&](const OptimizerConfig& config) {
    Model model(config, Cpu{}, start);
    EXPECT_THROW(model.update({0, 0}, 1, 0.1F), ConfigError);
    EXPECT_EQ(read<float>(model.weights), start);
  };
  refuses_a_step({.kind = "sgd", .nesterov = true});
  refuses_a_step({.kind = "adam", .beta1 = 1});
  refuses_a_step({.kind = "adam", .clip_norm = -1});
  refuses_a_step({.kind = "adamw", .epsilon = 0});
}

}  // namespace
}  // namespace carousel
