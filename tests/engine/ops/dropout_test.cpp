#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/ops.h"
#include "kernels/dropout/dropout.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

TEST(DropoutRule, ZeroIsTheIdentityAndElseTheGradientHasTheMaskOfTheValue) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor x = test::tensor_of<float>(device, {10, 10}, std::vector<float>(100, 1.0F));
    const Tensor gradient(device, {10, 10}, DType::f32);
    const Tensor step = test::tensor_of<std::int64_t>(device, {1}, {4});
    const RandomSource source{.seed = 1, .stream = 2, .step = step.view<std::int64_t, 1>()};
    const Var leaf = tape.parameter(x, gradient);
    EXPECT_EQ(dropout(leaf, 0, source).value().data(), x.data());

    const Var y = dropout(leaf, 0.5F, source);
    EXPECT_EQ(y.shape(), x.shape());
    test::sum(y);
    tape.backward();
    const auto value = test::read<float>(y.value());
    EXPECT_EQ(test::read<float>(gradient), value);  // both are scale·mask
    for (std::int64_t n = 0; n < 100; ++n) {
      EXPECT_EQ(value[static_cast<std::size_t>(n)] != 0, dropout_keeps(source, 4, n, 0.5F));
    }
  }
}

}  // namespace
}  // namespace carousel
