#include "engine/tape/tape.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/device.h"

namespace carousel {
namespace {

// y = a·x on the host, for tests of the tape alone.
Var scaled(const Var& x, float a) {
  const auto scale = [](const Tensor& from, const Tensor& to, float factor, bool accumulate) {
    const auto in = from.view<float, 1>();
    const auto out = to.mutable_view<float, 1>();
    for (std::int64_t i = 0; i < in.size(); ++i) {
      out(i) = factor * in(i) + (accumulate ? out(i) : 0.0F);
    }
  };
  Tensor y = x.tape().tensor(x.shape(), DType::f32);
  scale(x.value(), y, a, false);
  return x.tape().record(y, {x}, [=](const Tensor& d_y) {
    const GradientTarget d_x = x.gradient();
    scale(d_y, d_x.tensor, a, d_x.accumulate);
  });
}

// A loss: the sum of all elements, whose gradient is 1 everywhere.
void seed(const Var& x) {
  const GradientTarget d = x.gradient();
  const auto out = d.tensor.mutable_view<float, 1>();
  for (std::int64_t i = 0; i < out.size(); ++i) out(i) = 1.0F + (d.accumulate ? out(i) : 0.0F);
}

TEST(Tape, TheFirstWriterOverwritesAndTheSecondAdds) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, true);
  Tensor weight(cpu, {2}, DType::f32), gradient(cpu, {2}, DType::f32);
  weight.mutable_view<float, 1>()(0) = 3;
  weight.mutable_view<float, 1>()(1) = 5;
  gradient.mutable_view<float, 1>()(0) = 1e9F;  // what an earlier step left there

  const Var w = tape.parameter(weight, gradient);
  seed(scaled(w, 2));
  seed(scaled(scaled(w, 10), 10));
  tape.backward();
  EXPECT_EQ(*static_cast<const float*>(gradient.data()), 102.0F);
  EXPECT_TRUE(tape.unreached_parameters().empty());
}

TEST(Tape, AParameterThatNoLossReachesIsReported) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, true);
  Tensor weight(cpu, {1}, DType::f32), gradient(cpu, {1}, DType::f32);
  weight.mutable_view<float, 1>()(0) = 1;
  const Var w = tape.parameter(weight, gradient);
  scaled(w, 2);
  tape.backward();
  ASSERT_EQ(tape.unreached_parameters().size(), 1U);
  EXPECT_EQ(tape.unreached_parameters()[0].data(), gradient.data());
}

TEST(Tape, WithoutRecordingNothingNeedsAGradient) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, false);
  Tensor weight(cpu, {1}, DType::f32), gradient(cpu, {1}, DType::f32);
  weight.mutable_view<float, 1>()(0) = 1;
  const Var y = scaled(tape.parameter(weight, gradient), 2);
  EXPECT_FALSE(y.needs_gradient());
  EXPECT_FALSE(y.gradient().tensor);
}

TEST(Tape, NamesTheFirstValueComputedThatIsNotFinite) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, true);
  const Tensor weight(cpu, {1}, DType::f32), gradient(cpu, {1}, DType::f32),
      state(cpu, {1}, DType::f32);
  weight.mutable_view<float, 1>()(0) = 1;
  state.mutable_view<float, 1>()(0) = INFINITY;  // given, not computed
  const Var w = tape.parameter(weight, gradient);
  tape.label(tape.constant(state), {"initial state"});
  EXPECT_EQ(tape.first_non_finite(), "");
  const Var y = scaled(w, 2);
  tape.label(y, {"layer 0", "gate"});
  y.value().mutable_view<float, 1>()(0) = NAN;
  EXPECT_EQ(tape.first_non_finite(), "layer 0, gate");
}

TEST(Tape, NumbersLabelsThatOccurMoreThanOnce) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, false);
  const auto value = [&](Label label) {
    tape.label(tape.constant(tape.tensor({1, 1, 2}, DType::f32)), std::move(label));
  };
  for (int i = 0; i < 3; ++i) value({"mean loss"});
  for (int i = 0; i < 2; ++i) {
    value({"layer", "gate", {"i", "f"}});
    value({"layer", "cell state"});
  }
  std::vector<std::string> texts;
  for (const LabelledValue& entry : tape.labelled()) texts.push_back(entry.label.text(1));
  EXPECT_EQ(texts, (std::vector<std::string>{"mean loss", "mean loss (2)", "mean loss (3)",
                                             "layer, gate f", "layer, cell state",
                                             "layer (2), gate f", "layer (2), cell state"}));
}

TEST(Tape, ShowsLabelledValuesAndTheGradientsThatWereWritten) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, true);
  const Tensor weight(cpu, {1}, DType::f32), gradient(cpu, {1}, DType::f32);
  weight.mutable_view<float, 1>()(0) = 1;
  const Var w = tape.parameter(weight, gradient);
  tape.label(w, {"weight"});
  scaled(w, 2);  // without a label
  const Tensor kept = tape.tensor({1}, DType::f32);
  kept.mutable_view<float, 1>()(0) = 5;
  const Var gates = tape.overwritten(kept, {w});
  tape.label(gates, {"layer", "gate", {"i", "f"}});

  const auto before = tape.labelled();
  ASSERT_EQ(before.size(), 2U);
  EXPECT_EQ(before[0].label.text(), "weight");
  EXPECT_TRUE(before[0].is_parameter);
  EXPECT_EQ(before[1].label.text(), "layer, gate");
  EXPECT_EQ(before[1].label.text(1), "layer, gate f");
  EXPECT_FALSE(before[1].gradient);

  // The rule writes the gradient over the value, which nobody takes for a value from then on.
  const GradientTarget target = gates.gradient();
  EXPECT_EQ(target.tensor.data(), kept.data());
  EXPECT_FALSE(target.accumulate);
  target.tensor.mutable_view<float, 1>()(0) = NAN;
  EXPECT_EQ(tape.labelled()[1].gradient.data(), kept.data());
  EXPECT_EQ(tape.first_non_finite(), "the gradient of layer, gate");
}

TEST(Arena, TheSecondStepGetsTheSameAddressesAndAllocatesNothing) {
  for (const Device& device : test::devices()) {
    const std::size_t others = memory_use(device).current;
    Arena arena(device);
    const auto step = [&] {
      std::vector<const void*> addresses;
      for (const std::int64_t n : {1, 1000, 3'000'000, 7, 2'000'000}) {
        addresses.push_back(arena.tensor({n}, DType::f32).data());
      }
      return addresses;
    };
    const auto first = step();
    const MemoryUse before = memory_use(device);
    arena.reset();
    EXPECT_EQ(step(), first);
    EXPECT_EQ(memory_use(device).allocations, before.allocations);
    EXPECT_EQ(arena.reserved(), before.current - others);
  }
}

}  // namespace
}  // namespace carousel
