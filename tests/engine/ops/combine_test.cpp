#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

/// 1, 2, 3, …, scaled: exact in bf16, and so are the sums below.
template <class T>
Tensor counted(const Device& device, const Shape& shape, float scale) {
  std::vector<T> values;
  for (std::int64_t i = 1; i <= shape.size(); ++i)
    values.emplace_back(scale * static_cast<float>(i));
  return test::tensor_of<T>(device, shape, values);
}

/// A value that gets a gradient of its own type, as the output of any op does.
Var inner(Tape& tape, const Tensor& x) {
  return tape.output(x, {tape.parameter(x, Tensor(x.device(), x.shape(), DType::f32))});
}

/// The loss Σ_n d_y[n]·y[n] with d_y = 1, 2, 3, ….
template <class T>
void set_gradient(const Var& y) {
  const GradientTarget d = y.gradient();
  ASSERT_FALSE(d.accumulate);
  copy(counted<T>(y.value().device(), y.shape(), 1), d.tensor);
}

TEST(ConcatenateRule, EachPartGetsItsColumnsOfTheGradient) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Arena arena(device);
    Tape tape(arena, true);
    const Var a = inner(tape, counted<T>(device, {2, 1, 2}, 1));
    const Var b = inner(tape, counted<T>(device, {2, 1, 1}, -1));
    const Var ab = concatenate(a, b), bb = concatenate(b, b);
    EXPECT_EQ(ab.shape(), (Shape{2, 1, 3}));
    EXPECT_EQ(host_floats(ab.value()), (std::vector<float>{1, 2, -1, 3, 4, -2}));
    EXPECT_EQ(host_floats(bb.value()), (std::vector<float>{-1, -1, -2, -2}));
    set_gradient<T>(ab);
    set_gradient<T>(bb);
    tape.backward();
    EXPECT_EQ(host_floats(a.d()), (std::vector<float>{1, 2, 4, 5}));
    EXPECT_EQ(host_floats(b.d()), (std::vector<float>{3 + 1 + 2, 6 + 3 + 4}));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "concatenation");
  });
}

TEST(ConcatenateRule, APartMayBeEmptyOrNeedNoGradient) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Arena arena(device);
    Tape tape(arena, true);
    const Var a = inner(tape, counted<T>(device, {2, 2}, 1));
    const Var none = inner(tape, Tensor(device, {2, 0}, dtype_of<T>()));
    const Var fixed = tape.constant(counted<T>(device, {2, 1}, 8));
    const Var y = concatenate(concatenate(none, a), concatenate(fixed, none));
    EXPECT_EQ(host_floats(y.value()), (std::vector<float>{1, 2, 8, 3, 4, 16}));
    set_gradient<T>(y);
    tape.backward();
    EXPECT_EQ(host_floats(a.d()), (std::vector<float>{1, 2, 4, 5}));
    const Var nothing = tape.constant(Tensor(device, {0, 3}, dtype_of<T>()));
    EXPECT_EQ(concatenate(nothing, nothing).shape(), (Shape{0, 6}));
  });
}

TEST(AddRule, BothTermsGetTheGradientAndOneTermTwiceGetsItTwice) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Arena arena(device);
    Tape tape(arena, true);
    const Var a = inner(tape, counted<T>(device, {2, 1, 2}, 1));
    const Var b = inner(tape, counted<T>(device, {2, 1, 2}, 0.5F));
    const Var y = add(add(a, b), add(a, a));
    EXPECT_EQ(y.shape(), a.shape());
    EXPECT_EQ(host_floats(y.value()), (std::vector<float>{3.5F, 7, 10.5F, 14}));
    set_gradient<T>(y);
    tape.backward();
    EXPECT_EQ(host_floats(a.d()), (std::vector<float>{3, 6, 9, 12}));
    EXPECT_EQ(host_floats(b.d()), (std::vector<float>{1, 2, 3, 4}));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "sum");
  });
}

TEST(CombineRules, NameTheShapesThatDisagree) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, false);
  const auto value = [&](const Shape& shape, DType dtype = DType::f32) {
    return tape.constant(Tensor(cpu, shape, dtype));
  };
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_EQ(message([&] {
              concatenate(value({2, 3}), value({4, 3}));
            }),
            "concatenate: b is [4, 3], expected the dimensions of a, [2, 3], before the last");
  EXPECT_EQ(message([&] {
              add(value({2, 3}), value({2, 4}));
            }),
            "add: b is [2, 4], expected the shape of a, [2, 3]");
  EXPECT_THROW(concatenate(value({2, 3}), value({1, 2, 3})), ShapeError);
  EXPECT_THROW(concatenate(value({2, 3}), value({2, 3}, DType::bf16)), ShapeError);
  EXPECT_THROW(add(value({2, 3}), value({2, 3}, DType::bf16)), ShapeError);
}

TEST(ConvertRule, RoundsAndGivesTheGradientBack) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Var x = inner(tape, counted<float>(device, {2, 3}, 1.001F)), a = convert(x, DType::bf16),
              b = convert(x, DType::bf16), same = convert(x, DType::f32),
              wide = convert(a, DType::f32);
    EXPECT_EQ(a.dtype(), DType::bf16);
    EXPECT_EQ(wide.dtype(), DType::f32);
    EXPECT_EQ(same.value().data(), x.value().data());
    EXPECT_EQ(host_floats(a.value()), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(host_floats(wide.value()), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    set_gradient<float>(wide);
    set_gradient<bf16>(b);
    tape.backward();
    EXPECT_EQ(x.d().dtype(), DType::f32);
    EXPECT_EQ(host_floats(x.d()), (std::vector<float>{2, 4, 6, 8, 10, 12}));
  }
}

// Steps in any order, one twice and one never; parts of several steps and a constant among them.
TEST(StepRules, StepsAreTakenApartAndJoined) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Arena arena(device);
    Tape tape(arena, true);
    const Var x = inner(tape, counted<T>(device, {3, 1, 2}, 1));
    const Var fixed = tape.constant(counted<T>(device, {2, 1, 2}, -1));
    const std::vector<Var> parts{fixed, time_step(x, 2), time_step(x, 0), time_step(x, 2)};
    EXPECT_EQ(parts[1].shape(), (Shape{1, 1, 2}));
    const Var y = join_steps(parts);
    EXPECT_EQ(y.shape(), (Shape{5, 1, 2}));
    EXPECT_EQ(host_floats(y.value()), (std::vector<float>{-1, -2, -3, -4, 5, 6, 1, 2, 5, 6}));
    set_gradient<T>(y);
    tape.backward();
    EXPECT_EQ(host_floats(x.d()), (std::vector<float>{7, 8, 0, 0, 5 + 9, 6 + 10}));
    EXPECT_THROW(time_step(x, 3), ShapeError);
    EXPECT_THROW(join_steps({}), ShapeError);
    EXPECT_THROW(join_steps(std::vector<Var>{x, tape.constant(counted<T>(device, {1, 1, 3}, 1))}),
                 ShapeError);
  });
}

}  // namespace
}  // namespace carousel
