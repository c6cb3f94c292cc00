// Updates and clipping against what PyTorch computed: tests/golden/*.json.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/training/optimizer.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/weight_update/rules.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using test::part;
using Numbers = std::vector<double>;

OptimizerConfig config_of(const nlohmann::json& options) {
  OptimizerConfig config{.kind = options.at("kind")};
  config.momentum = options.value("momentum", 0.0);
  config.nesterov = options.value("nesterov", false);
  config.beta1 = options.value("beta1", 0.9);
  config.beta2 = options.value("beta2", 0.999);
  config.epsilon = options.value("epsilon", 1e-8);
  config.alpha = options.value("alpha", 0.99);
  config.centered = options.value("centered", false);
  config.rate_decay = options.value("rate_decay", 0.0);
  config.initial_accumulator = options.value("initial_accumulator", 0.0);
  config.weight_decay = options.at("weight_decay");
  config.clip_norm = options.at("clip_norm");
  config.clip_value = options.at("clip_value");
  return config;
}

/// A parameter, and updates of it by given gradients.
struct Updates {
  Updates(const OptimizerConfig& config, const Device& device, const Numbers& start)
      : parameters(test::one_parameter(device, start.size())),
        rate(device, {1}, DType::f32),
        number(device, {1}, DType::i64),
        loss(device, {1}, DType::f32),
        optimizer(config, parameters) {
    test::write(weight(), start);
    test::write(loss, {0});
  }
  void update(const Numbers& gradient, double learning_rate) {
    ++count;
    test::write(parameters.gradient(0), gradient);
    test::write(rate, {learning_rate});
    copy_from_host(number, &count);
    optimizer.step(rate, number, loss);
  }
  const Tensor& weight() const { return parameters.weight(0); }

  Parameters parameters;
  Tensor rate, number, loss;
  Optimizer optimizer;
  std::int64_t count = 0;
};

class GoldenTrajectory : public testing::TestWithParam<std::tuple<Device, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Optimizers, GoldenTrajectory,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values("sgd", "sgd_momentum", "sgd_nesterov",
                                                          "adam", "adamw", "rmsprop",
                                                          "rmsprop_momentum", "rmsprop_centered",
                                                          "adagrad", "adagrad_decay")),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  std::get<1>(each.param);
                         });

TEST_P(GoldenTrajectory, FollowsPyTorchForTwentyUpdates) {
  const Golden golden(std::get<1>(GetParam()));
  const Numbers& start = golden.given.at("weight").values;
  const Numbers& rates = golden.given.at("learning_rate").values;
  const OptimizerConfig config = config_of(golden.options);
  Updates run(config, std::get<0>(GetParam()), start);
  const Tolerance once = run.optimizer.tolerance();
  constexpr std::size_t kUpdates = 20;
  ASSERT_EQ(rates.size(), kUpdates);
  for (std::size_t t = 0; t < kUpdates; ++t) {
    run.update(part(golden.given.at("gradient").values, t, kUpdates), rates[t]);
    // What one update may be off by, for each update so far.
    const auto updates = static_cast<double>(t + 1);
    const Tolerance all{.absolute = updates * once.absolute, .relative = updates * once.relative};
    ASSERT_TRUE(
        close(as_double(run.weight()), part(golden.values.at("weight").values, t, kUpdates), all))
        << "after update " << t + 1;
    ASSERT_TRUE(close(as_double(run.optimizer.gradient_norm()),
                      part(golden.values.at("norm").values, t, kUpdates), kGlobalNormTolerance));
  }
  const Tolerance all{.absolute = kUpdates * once.absolute, .relative = kUpdates * once.relative};
  const auto state = run.optimizer.state_of(0);
  EXPECT_EQ(state.size() + 2, golden.values.size());  // beside norm and weight
  for (const auto& [name, tensor] : state) {
    const Numbers& want = golden.values.at(name).values;
    const double factor = test::to_unit(want);
    EXPECT_TRUE(close(test::scaled(as_double(tensor), factor), test::scaled(want, factor), all))
        << name;
  }
}

class GoldenClipping : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenClipping, testing::ValuesIn(test::devices()),
                         [](const auto& each) { return test::device_name(each.param); });

// Subtracted from a weight of 0 with a learning rate of 1, a gradient shows itself as it was
// clipped.
TEST_P(GoldenClipping, ByNormByValueAndByBothInThatOrder) {
  const Golden golden("clipping");
  const test::Recorded& gradient = golden.given.at("gradient");
  const auto count = static_cast<std::size_t>(gradient.extents[0]);
  const Numbers zeros(gradient.values.size() / count, 0);
  const double norm = golden.options.at("clip_norm"), value = golden.options.at("clip_value");
  for (const auto& [name, clip_norm, clip_value] :
       {std::tuple{"by_norm", norm, 0.0}, {"by_value", 0.0, value}, {"by_both", norm, value}}) {
    for (std::size_t i = 0; i < count; ++i) {
      Updates run({.kind = "sgd", .clip_norm = clip_norm, .clip_value = clip_value}, GetParam(),
                  zeros);
      run.update(part(gradient.values, i, count), 1);
      EXPECT_TRUE(close(test::scaled(as_double(run.weight()), -1),
                        part(golden.values.at(name).values, i, count), Sgd::kTolerance))
          << name << " of gradient " << i;
      EXPECT_TRUE(close(as_double(run.optimizer.gradient_norm()),
                        part(golden.values.at("norm").values, i, count), kGlobalNormTolerance));
    }
  }
}

}  // namespace
}  // namespace carousel
