#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/model/model.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

// A penalty on the dropped states and one on the states themselves, beside a loss of the former:
// every gradient is the sum of its parts, and the objective has each term's mean.
TEST(ActivationPenaltyRule, IsATermBesideALossThatReachesTheSameStates) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor value = test::tensor_of<float>(device, {3, 1, 2}, {1, 2, 3, 2, 0, -4});
    const Tensor gradient(device, {3, 1, 2}, DType::f32);
    const Tensor step = test::tensor_of<std::int64_t>(device, {1}, {4});
    const Var h = tape.parameter(value, gradient);
    const Var dropped =
        dropout(h, 0.5F, {.seed = 1, .stream = 2, .step = step.view<std::int64_t, 1>()});
    const auto factor = [&](std::size_t i) {  // 2 or 0
      const float before = test::read<float>(value)[i];
      return before == 0 ? 0 : test::read<float>(dropped.value())[i] / before;
    };
    test::sum(dropped);
    const std::vector<LossTerm> terms{
        {.name = "activation", .loss = activation_penalty(dropped, 3), .weight = 3},
        {.name = "temporal", .loss = temporal_penalty(h, 2), .weight = 2}};
    tape.backward();

    const std::vector<float> of_temporal{-2, 0, 5, 6, -3, -6};
    const auto x = test::read<float>(value), got = test::read<float>(gradient);
    double squares = 0;
    for (std::size_t i = 0; i < 6; ++i) {
      if (x[i] == 0) continue;  // whose factor the value does not tell
      const float y = x[i] * factor(i);
      squares += static_cast<double>(y * y);
      EXPECT_FLOAT_EQ(got[i], of_temporal[i] + factor(i) * (1 + y));
    }
    const auto means = test::read<float>(Objective{.terms = terms}.means(tape));
    EXPECT_NEAR(means[0], squares / 6, 1e-6);
    EXPECT_FLOAT_EQ(means[1], 49.0F / 4);
  }
}

TEST(ActivationPenaltyRule, PaddingAndStepsAcrossAResetDoNotCount) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, false);
    const Var h = tape.constant(test::tensor_of<float>(device, {3, 2, 1}, {1, 2, 3, 5, 100, 7}));
    const RowRange rows{.begin = {}, .end = test::tensor_of<std::int32_t>(device, {2}, {2, 3})};
    const Tensor reset = test::tensor_of<std::int32_t>(device, {3, 2}, {0, 0, 0, 0, 0, 1});
    const auto mean = [](const Loss& loss) { return test::read<float>(loss.mean.value())[0]; };
    EXPECT_FLOAT_EQ(mean(activation_penalty(h, 1, rows)), 88.0F / 5);       // 1, 3 and 2, 5, 7
    EXPECT_FLOAT_EQ(mean(temporal_penalty(h, 1, reset, rows)), 13.0F / 2);  // 1 → 3 and 2 → 5
    EXPECT_FALSE(activation_penalty(h, 1, rows).rows.present());
  }
}

}  // namespace
}  // namespace carousel
