#include <gtest/gtest.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "kernels/dropout/dropout.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"
#include "tests/support/types.h"

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

TEST(DropoutRule, OneMaskServesAllStepsOfASequence) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor x = test::tensor_of<float>(device, {6, 5, 4}, std::vector<float>(120, 1.0F));
    const Tensor gradient(device, {6, 5, 4}, DType::f32);
    const Tensor step = test::tensor_of<std::int64_t>(device, {1}, {4});
    const RandomSource source{.seed = 1, .stream = 2, .step = step.view<std::int64_t, 1>()};
    const Var leaf = tape.parameter(x, gradient);
    const Var y = dropout(leaf, 0.5F, source, MaskDraw::once);
    test::sum(y);
    tape.backward();
    const auto value = test::read<float>(y.value());
    EXPECT_EQ(test::read<float>(gradient), value);
    for (std::int64_t n = 0; n < 120; ++n) {
      EXPECT_EQ(value[static_cast<std::size_t>(n)] != 0, dropout_keeps(source, 4, n % 20, 0.5F));
    }
    EXPECT_THROW(dropout(tape.constant(x.reshaped({120})), 0.5F, source, MaskDraw::once),
                 ShapeError);
  }
}

// The layer with the dropped weight is the layer with a weight that was dropped by hand, and what
// the raw weight gets is the gradient of that one under the mask.
TEST(WeightDropRule, TheRawWeightGetsTheGradientOfTheDroppedOneUnderTheMask) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const auto filled = [&](Shape shape) {
      std::vector<T> values;
      for (std::int64_t i = 0; i < shape.size(); ++i) {
        values.emplace_back(static_cast<float>((i * 7 + 3) % 11) / 8.0F - 0.625F);
      }
      return test::tensor_of<T>(device, shape, values);
    };
    const Tensor x = filled({4, 2, 3}), weight = filled({12, 3});
    const Tensor step = test::tensor_of<std::int64_t>(device, {1}, {9});
    const RandomSource source{.seed = 5, .stream = 6, .step = step.view<std::int64_t, 1>()};
    const float drop = 0.5F;  // so that the scale, 2, is exact in bf16

    /// The gradient of a leaf with the value `of`, through `used`(leaf).
    const auto gradient_of = [&](const Tensor& of, const auto& used) {
      Arena arena(device);
      Tape tape(arena, true);
      const Tensor gradient(device, of.shape(), DType::f32);
      const Var h = recurrent_sequence(cell_kind("lstm"), tape.constant(x),
                                       {.weight_ih = tape.constant(weight),
                                        .weight_hh = used(tape.parameter(of, gradient))})
                        .h;
      run(device, Fill<T>{.to = h.gradient().tensor.mutable_view<T, 1>(), .value = T(1.0F)});
      tape.backward();
      return test::read<float>(gradient);
    };
    auto dropped = test::read<T>(weight);
    for (std::size_t n = 0; n < dropped.size(); ++n) {
      const bool kept = dropout_keeps(source, 9, static_cast<std::int64_t>(n), drop);
      dropped[n] = static_cast<T>(static_cast<float>(dropped[n]) * (kept ? 2.0F : 0.0F));
    }
    const Tensor by_hand = test::tensor_of<T>(device, weight.shape(), dropped);
    auto want = gradient_of(by_hand, [](Var w) { return w; });
    ASSERT_NE(want, std::vector<float>(want.size(), 0.0F));
    for (std::size_t n = 0; n < want.size(); ++n) {
      want[n] *= dropout_keeps(source, 9, static_cast<std::int64_t>(n), drop) ? 2.0F : 0.0F;
    }
    EXPECT_EQ(gradient_of(weight, [&](Var w) { return weight_drop(w, drop, source); }), want);
    EXPECT_EQ(gradient_of(by_hand, [&](Var w) { return weight_drop(w, 0, source); }),
              gradient_of(by_hand, [](Var w) { return w; }));
  });
}

TEST(DropoutRule, IsNamedAfterItsLayerIfItHasOne) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, false);
  const Tensor step = test::tensor_of<std::int64_t>(cpu, {1}, {1});
  const auto drop = [&] {
    dropout(tape.constant(tape.tensor({1, 1, 2}, DType::f32)), 0.5F,
            {.step = step.view<std::int64_t, 1>()});
    return tape.labelled().back().label.text();
  };
  EXPECT_EQ(drop(), "dropout");
  const Tape::Layer layer(tape, "embedding");
  EXPECT_EQ(drop(), "dropout after embedding");
}

}  // namespace
}  // namespace carousel
