// The rules of layer_norm, rms_norm, activation and gated_activation: what flows on a tape. Values are the kernels' tests' and
// PyTorch's recordings' (golden_test.cpp).
#include <gtest/gtest.h>

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

TEST(LayerNormRule, AGainOrABiasMayBeAbsentOrFixed) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor x = test::tensor_of<float>(device, {1, 2, 2}, {1, 3, 5, 9}),
                 d_x(device, {1, 2, 2}, DType::f32), d_bias(device, {2}, DType::f32);
    const Var leaf = tape.parameter(x, d_x), none;
    const Var bias = tape.parameter(test::tensor_of<float>(device, {2}, {10, 20}), d_bias);
    const Var fixed = tape.constant(test::tensor_of<float>(device, {2}, {2, 3}));
    EXPECT_TRUE(test::close(host_floats(layer_norm(leaf, none, none, 0).value()),
                            Numbers{-1, 1, -1, 1}, {.absolute = 1e-6}));
    const Var y = layer_norm(leaf, fixed, bias, 0);
    EXPECT_EQ(y.shape(), x.shape());
    EXPECT_TRUE(test::close(host_floats(y.value()), Numbers{8, 23, 8, 23}, {.absolute = 1e-5}));
    test::sum(y);
    tape.backward();
    EXPECT_EQ(host_floats(d_bias), (Numbers{2, 2}));
    // Two columns are ±1 whatever they hold.
    EXPECT_TRUE(test::close(host_floats(d_x), Numbers(4, 0), {.absolute = 1e-5}));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "normalized");
  }
}

/// A sum, its norm, and the gradients of both summands and of the gain. The sum is used again, as the
/// residual stream is.
std::vector<Numbers> sum_and_norm(const Device& device, bool fused) {
  Arena arena(device);
  Tape tape(arena, true);
  const auto leaf = [&](const Shape& shape, const Numbers& values) {
    return tape.parameter(test::tensor_of<float>(device, shape, values),
                          Tensor(device, shape, DType::f32));
  };
  const Var a = leaf({1, 2, 3}, {1, 7, -3, 3, 0.1F, 2}),
            b = leaf({1, 2, 3}, {0.7F, -2, 5, 1, 4, -0.3F}), gain = leaf({3}, {1, 3, 2});
  const Var sum = fused ? Var{} : add(a, b);
  const SumAndNorm both = fused ? add_rms_norm(a, b, gain) : SumAndNorm{sum, rms_norm(sum, gain)};
  test::sum(add(both.sum, both.normalized));
  tape.backward();
  std::vector<Numbers> result;
  for (const Var& v : {both.sum, both.normalized}) result.push_back(host_floats(v.value()));
  for (const Var& v : {a, b, gain}) result.push_back(host_floats(v.d()));
  return result;
}

TEST(RmsNormRule, ASumAndItsNormAreToTheLastBitThoseOfTheOps) {
  for (const Device& device : test::devices()) {
    const std::vector<Numbers> got = sum_and_norm(device, true);
    EXPECT_EQ(got, sum_and_norm(device, false));
    EXPECT_EQ(got[0][0], 1.7F);
    EXPECT_NE(got[2], Numbers(6, 1));  // 1 comes by the sum alone
    EXPECT_EQ(got[2], got[3]);
  }
  Arena arena(Cpu{});
  Tape tape(arena, false);
  const auto zeros = [&](const Shape& shape) {
    return tape.constant(Tensor(Cpu{}, shape, DType::f32));
  };
  EXPECT_THROW(add_rms_norm(zeros({1, 2, 3}), zeros({1, 3, 2}), Var{}), ShapeError);
}

TEST(ActivationRule, ASecondUseAddsToTheGradient) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor d_x(device, {1, 3}, DType::f32);
    const Var x = tape.parameter(test::tensor_of<float>(device, {1, 3}, {-1, 0, 2}), d_x);
    const Var y = activation(x, Activation::relu), z = activation(x, Activation::relu);
    EXPECT_EQ(host_floats(y.value()), (Numbers{0, 0, 2}));
    test::sum(y);
    test::sum(z);
    tape.backward();
    EXPECT_EQ(host_floats(d_x), (Numbers{0, 0, 2}));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "activation");
  }
}

TEST(RmsNormRule, AGainMayBeAbsentOrFixedOrAParameter) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor x = test::tensor_of<float>(device, {1, 2, 2}, {1, 7, -3, 3}),
                 d_x(device, {1, 2, 2}, DType::f32), d_gain(device, {2}, DType::f32);
    const Var leaf = tape.parameter(x, d_x), none;
    const Var gain = tape.parameter(test::tensor_of<float>(device, {2}, {10, 20}), d_gain);
    const Var fixed = tape.constant(test::tensor_of<float>(device, {2}, {2, 3}));
    constexpr Tolerance kClose{.absolute = 1e-5};
    EXPECT_TRUE(test::close(host_floats(rms_norm(leaf, none, 0).value()),
                            Numbers{0.2F, 1.4F, -1, 1}, kClose));
    EXPECT_TRUE(test::close(host_floats(rms_norm(leaf, fixed, 0).value()),
                            Numbers{0.4F, 4.2F, -2, 3}, kClose));
    const Var y = rms_norm(leaf, gain, 0);
    EXPECT_EQ(y.shape(), x.shape());
    test::sum(y);
    tape.backward();
    EXPECT_TRUE(test::close(host_floats(d_gain), Numbers{-0.8F, 2.4F}, kClose));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "normalized");
  }
}

TEST(GatedActivationRule, HalvesTheWidthAndASecondUseAddsToTheGradient) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor d_x(device, {1, 1, 4}, DType::f32);
    const Var x = tape.parameter(test::tensor_of<float>(device, {1, 1, 4}, {2, -3, 5, 7}), d_x);
    const Var y = gated_activation(x, Activation::relu), z = gated_activation(x, Activation::relu);
    EXPECT_EQ(y.shape(), (Shape{1, 1, 2}));
    EXPECT_EQ(host_floats(y.value()), (Numbers{10, 0}));
    test::sum(y);
    test::sum(z);
    tape.backward();
    EXPECT_EQ(host_floats(d_x), (Numbers{10, 0, 4, 0}));
  }
}

TEST(NormalizationRules, RefuseShapesAndTypesThatDisagree) {
  Arena arena(Cpu{});
  Tape tape(arena, false);
  const auto value = [&](const Shape& shape, DType dtype = DType::f32) {
    return tape.constant(Tensor(Cpu{}, shape, dtype));
  };
  EXPECT_THROW(layer_norm(value({2, 3}), value({2}), Var{}), ShapeError);
  EXPECT_THROW(layer_norm(value({2, 3}), Var{}, value({3}, DType::bf16)), ShapeError);
  EXPECT_THROW(rms_norm(value({2, 3}), value({2})), ShapeError);
  EXPECT_THROW(activation(value({2}, DType::i32), Activation::gelu), std::invalid_argument);
  EXPECT_THROW(gated_activation(value({2, 3})), ShapeError);
}

}  // namespace
}  // namespace carousel
