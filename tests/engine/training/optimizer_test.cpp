#include "engine/training/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/memory.h"
#include "tests/reference/global_norm.h"
#include "tests/reference/weight_update.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using Settings = reference::OptimizerSettings;
using test::as_double;
using test::read;

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(normal(random));
  return values;
}

/// A model of one parameter.
struct Model {
  Model(const OptimizerConfig& config, const Device& device, const std::vector<float>& start)
      : parameters(test::one_parameter(device, start.size(), DType::bf16)),
        rate(device, {1}, DType::f32),
        step(device, {1}, DType::i64),
        loss(test::tensor_of<float>(device, {1}, {1})),
        optimizer(config, parameters) {
    copy_from_host(parameters.weight(0), start.data());
    parameters.refresh_working();
  }

  void update(const std::vector<float>& gradient, std::int64_t number, float learning_rate) {
    copy_from_host(parameters.gradient(0), gradient.data());
    copy_from_host(rate, &learning_rate);
    copy_from_host(step, &number);
    optimizer.step(rate, step, loss);
  }

  std::vector<float> weights() const { return read<float>(parameters.weight(0)); }
  std::vector<bf16> working() const {
    return read<bf16>(parameters.part_of(parameters.flat_working(), 0));
  }

  /// Every bit that a step may change.
  std::vector<std::vector<float>> everything() const {
    std::vector<std::vector<float>> all{read<float>(parameters.flat_weights())};
    for (const auto& [name, state] : optimizer.state()) all.push_back(read<float>(state));
    all.emplace_back();
    for (const bf16 w : read<bf16>(parameters.flat_working())) all.back().push_back(w);
    return all;
  }

  Parameters parameters;
  Tensor rate, step, loss;
  Optimizer optimizer;
};

class OptimizerOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, OptimizerOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

constexpr std::size_t kSize = 777;
const Tolerance kTwentySteps{.absolute = 4e-6, .relative = 4e-6};

TEST_P(OptimizerOn, FollowsTheOracleForTwentySteps) {
  constexpr auto kAdam = Settings::Kind::adam;
  const std::vector<std::pair<OptimizerConfig, Settings>> cases{
      {{.kind = "adamw", .weight_decay = 0.1, .clip_norm = 20},
       {.kind = kAdam, .weight_decay = 0.1, .decoupled = true}},
      {{.kind = "adam", .beta1 = 0.8, .weight_decay = 0.1},
       {.kind = kAdam, .weight_decay = 0.1, .beta1 = 0.8}},
      {{.kind = "sgd", .weight_decay = 0.1, .clip_norm = 5}, {.weight_decay = 0.1}},
      {{.kind = "sgd", .momentum = 0.9, .nesterov = true, .clip_value = 0.5},
       {.clip_value = 0.5, .momentum = 0.9, .nesterov = true}},
      {{.kind = "rmsprop", .momentum = 0.5, .epsilon = 0.1, .alpha = 0.9, .clip_norm = 5},
       {.kind = Settings::Kind::rmsprop, .momentum = 0.5, .epsilon = 0.1, .alpha = 0.9}},
      {{.kind = "adagrad", .rate_decay = 0.1, .initial_accumulator = 0.5},
       {.kind = Settings::Kind::adagrad, .rate_decay = 0.1, .initial = 0.5}}};
  for (const auto& [config, settings] : cases) {
    const auto start = random_values(kSize, 1);
    Model model(config, GetParam(), start);
    reference::Optimizer want(settings, as_double(start));
    for (unsigned t = 1; t <= 20; ++t) {
      const auto gradient = random_values(kSize, 10 + t);
      const double norm = reference::global_norm(as_double(gradient));
      ASSERT_GT(norm, config.clip_norm) << "the gradient was to be clipped";
      want.s.learning_rate = 0.01 / t;
      want.s.gradient_scale = reference::gradient_scale(norm, config.clip_norm);
      model.update(gradient, t, static_cast<float>(want.s.learning_rate));
      want.step(as_double(gradient), t);
      EXPECT_NEAR(read<float>(model.optimizer.gradient_norm())[0], norm, 1e-5);
    }
    const auto weights = model.weights();
    EXPECT_TRUE(test::close(weights, want.weight, kTwentySteps)) << config.kind;
    EXPECT_EQ(read<std::int32_t>(model.optimizer.finite())[0], 1);
    const auto working = model.working();
    for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(working[i].bits, bf16(weights[i]).bits);
  }
}

TEST_P(OptimizerOn, ABadStepAndAllAfterItChangeNothing) {
  for (const std::string_view kind : OptimizerConfig::kKinds) {
    for (const bool bad_loss : {false, true}) {
      const double momentum = kind == "sgd" ? 0.9 : 0;
      Model model(
          {.kind = std::string(kind), .momentum = momentum, .weight_decay = 0.1, .clip_norm = 1},
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

  Model resumed(config, GetParam(), whole.weights());
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
  EXPECT_EQ(Model({.kind = "adagrad"}, Cpu{}, start).optimizer.state().size(), 1);
  for (const bool centered : {false, true}) {
    for (const double momentum : {0.0, 0.5}) {
      const OptimizerConfig config{.kind = "rmsprop", .momentum = momentum, .centered = centered};
      EXPECT_EQ(Model(config, Cpu{}, start).optimizer.state().size(),
                1 + (momentum > 0) + centered);
    }
  }
}

// Weights that were loaded are in the bf16 copy too: the next forward pass reads it.
TEST_P(OptimizerOn, TheBf16CopyIsOfTheRestoredWeights) {
  const OptimizerConfig config{.kind = "sgd"};
  Model trained(config, GetParam(), random_values(kSize, 1));
  trained.update(random_values(kSize, 2), 1, 0.1F);
  Model resumed(config, GetParam(), random_values(kSize, 3));
  copy_from_host(resumed.parameters.weight(0), trained.weights().data());
  resumed.parameters.refresh_working();
  EXPECT_EQ(resumed.everything(), trained.everything());
}

TEST(Optimizer, RefusesWhatMakesNoSense) {
  const std::vector<float> start{1, 2};
  const auto refuses = [&](const OptimizerConfig& config) {
    EXPECT_THROW(Model(config, Cpu{}, start).update({0, 0}, 1, 0.1F), ConfigError);
  };
  refuses({.kind = "sdg"});
  refuses({.kind = "sgd", .nesterov = true});
  refuses({.kind = "sgd", .momentum = -1});
  refuses({.kind = "adam", .beta1 = 1});
  refuses({.kind = "adam", .clip_norm = -1});
  refuses({.kind = "adamw", .epsilon = 0});
  refuses({.kind = "rmsprop", .alpha = 1});
  refuses({.kind = "adagrad", .initial_accumulator = -1});
}

}  // namespace
}  // namespace carousel
