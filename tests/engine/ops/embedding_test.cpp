#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

TEST(EmbeddingRule, TwoUsesOfOneWeightShareItsGradient) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor weight = test::tensor_of<float>(device, {3, 2}, {1, 2, 3, 4, 5, 6});
    const Tensor gradient = test::tensor_of<float>(device, {3, 2}, std::vector<float>(6, 9e9F));
    const Var w = tape.parameter(weight, gradient);
    const Var y = embedding(w, test::tensor_of<std::int32_t>(device, {2, 2}, {2, 0, 2, 2}));
    EXPECT_EQ(y.shape(), (Shape{2, 2, 2}));
    EXPECT_EQ(test::read<float>(y.value()), (std::vector<float>{5, 6, 1, 2, 5, 6, 5, 6}));
    const Var z = embedding(w, test::tensor_of<std::int32_t>(device, {1}, {0}));
    test::sum(y);
    test::sum(z);
    tape.backward();
    EXPECT_EQ(test::read<float>(gradient), (std::vector<float>{2, 2, 0, 0, 3, 3}));
  }
}

TEST(EmbeddingRule, RefusesATokenOfNoDimension) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, false);
  const Var w = tape.constant(test::tensor_of<float>(cpu, {1, 1}, {1}));
  EXPECT_THROW(embedding(w, test::tensor_of<std::int32_t>(cpu, {}, {0})), ShapeError);
}

}  // namespace
}  // namespace carousel
