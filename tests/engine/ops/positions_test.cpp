// The rules of rope and position_embedding: what flows on a tape. Values are the kernels' tests'.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using Numbers = std::vector<float>;
constexpr Tolerance kClose{.absolute = 1e-6};

TEST(RopeRule, TurnsTheGradientBackAndAddsThatOfASecondUse) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor d_x(device, {2, 1, 3}, DType::f32);
    const Var x =
        tape.parameter(test::tensor_of<float>(device, {2, 1, 3}, {1, 2, 3, 1, 0, 4}), d_x);
    const RopeOptions options{.heads = 1, .head_width = 2};
    const Var y = rope(x, options), z = rope(x, options);
    const float s = std::sin(1.0F), c = std::cos(1.0F);
    EXPECT_TRUE(test::close(host_floats(y.value()), Numbers{1, 2, 3, c, s, 4}, kClose));
    test::sum(y);
    test::sum(z);
    tape.backward();
    const Numbers want{2, 2, 2, 2 * (c + s), 2 * (c - s), 2};
    EXPECT_TRUE(test::close(host_floats(d_x), want, kClose));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "turned");
  }
}

TEST(RopeRule, AnOffsetOfEachRowCounts) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, false);
    const Var x = tape.constant(test::tensor_of<float>(device, {1, 2, 2}, {1, 0, 1, 0}));
    const Tensor offset = test::tensor_of<std::int64_t>(device, {2}, {0, 2});
    const Var y = rope(x, {.heads = 1, .head_width = 2, .offset = offset});
    EXPECT_TRUE(
        test::close(host_floats(y.value()), Numbers{1, 0, std::cos(2.0F), std::sin(2.0F)}, kClose));
  }
}

TEST(PositionEmbeddingRule, TheTableAndTheInputGetTheirGradients) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor d_x(device, {1, 2, 2}, DType::f32), d_table(device, {2, 2}, DType::f32);
    const Var x = tape.parameter(test::tensor_of<float>(device, {1, 2, 2}, {1, 2, 3, 4}), d_x);
    const Var table =
        tape.parameter(test::tensor_of<float>(device, {2, 2}, {10, 20, 30, 40}), d_table);
    const Var y = position_embedding(x, table, {}, 2), waves = position_embedding(x, Var{});
    EXPECT_EQ(host_floats(y.value()), (Numbers{12, 24, 16, 28}));
    EXPECT_EQ(host_floats(waves.value()), (Numbers{1, 3, 3, 5}));
    test::sum(y);
    test::sum(waves);
    tape.backward();
    EXPECT_EQ(host_floats(d_x), (Numbers{3, 3, 3, 3}));
    EXPECT_EQ(host_floats(d_table), (Numbers{2, 2, 0, 0}));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "with positions");
  }
}

TEST(PositionRules, RefuseWhatTheyCannotDo) {
  Arena arena(Cpu{});
  Tape tape(arena, false), recording(arena, true);
  const auto value = [&](const Shape& shape) {
    return tape.constant(Tensor(Cpu{}, shape, DType::f32));
  };
  EXPECT_THROW(rope(value({2, 1, 5}), {.heads = 2, .head_width = 4}), ShapeError);
  EXPECT_THROW(position_embedding(value({2, 1, 5}), value({9, 4})), ShapeError);
  const Tensor offset(Cpu{}, {1}, DType::i64);
  const Var x = recording.constant(Tensor(Cpu{}, {2, 1, 4}, DType::f32));
  EXPECT_THROW(position_embedding(x, Var{}, offset), Error);
}

}  // namespace
}  // namespace carousel
