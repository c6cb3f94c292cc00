#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

TEST(PoolingRule, TwoUsesOfOneSequenceShareItsGradient) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor x = test::tensor_of<float>(device, {2, 2, 2}, {1, 4, 5, 6, 3, 2, 7, 8});
    const Tensor gradient = test::tensor_of<float>(device, {2, 2, 2}, std::vector<float>(8, 9e9F));
    const Tensor lengths = test::tensor_of<std::int32_t>(device, {2}, {2, 1});
    const Var leaf = tape.parameter(x, gradient);
    const Var mean = pool(leaf, Pooling::mean), max = pool(leaf, Pooling::max, lengths);
    EXPECT_EQ(mean.shape(), (Shape{2, 2}));
    EXPECT_EQ(test::read<float>(mean.value()), (std::vector<float>{2, 3, 6, 7}));
    EXPECT_EQ(test::read<float>(max.value()), (std::vector<float>{3, 4, 5, 6}));
    test::sum(mean);
    test::sum(max);
    tape.backward();
    EXPECT_EQ(test::read<float>(gradient),
              (std::vector<float>{0.5F, 1.5F, 1.5F, 1.5F, 1.5F, 0.5F, 0.5F, 0.5F}));
    const auto labelled = tape.labelled();
    ASSERT_EQ(labelled.size(), 2U);
    EXPECT_EQ(labelled[0].label.text(), "mean over time");
    EXPECT_EQ(labelled[1].label.text(), "max over time");
    EXPECT_EQ(labelled[1].label.axes, Axes::state);
  }
}

TEST(PoolingRule, RefusesASequenceWithoutTimeSteps) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, false);
  EXPECT_THROW(pool(tape.constant(Tensor(cpu, {0, 2, 3}, DType::f32)), Pooling::max), ShapeError);
  EXPECT_THROW(pool(tape.constant(Tensor(cpu, {2, 3}, DType::f32)), Pooling::max), ShapeError);
}

}  // namespace
}  // namespace carousel
