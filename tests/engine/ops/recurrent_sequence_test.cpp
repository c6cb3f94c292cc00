// The tape rule of recurrent_sequence: that gradients flow from all outputs to all inputs.
#include <gtest/gtest.h>

#include <vector>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

constexpr std::int64_t kBatch = 2, kInput = 3, kWidth = 5;

Tensor filled(const Device& device, Shape shape, float scale) {
  std::vector<float> values(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = scale * static_cast<float>((i * 7 + 3) % 11) / 11 - scale / 2;
  }
  Tensor tensor(device, shape, DType::f32);
  copy_from_host(tensor, values.data());
  return tensor;
}

std::vector<float> read(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  copy_to_host(tensor, values.data());
  return values;
}

/// A layer whose parameters and inputs all have gradients.
struct Layer {
  Device device;
  Arena arena{device};
  Tape tape{arena, true};
  std::vector<Tensor> gradients{};

  Var leaf(Shape shape, float scale) {
    gradients.emplace_back(device, shape, DType::f32);
    return tape.parameter(filled(device, shape, scale), gradients.back());
  }
  RecurrentParameters parameters = {.weight_ih = leaf({4 * kWidth, kInput}, 1),
                                    .weight_hh = leaf({4 * kWidth, kWidth}, 1),
                                    .bias_ih = leaf({4 * kWidth}, 1),
                                    .bias_hh = leaf({4 * kWidth}, 1)};
  std::vector<Var> initial = {leaf({kBatch, kWidth}, 1), leaf({kBatch, kWidth}, 1)};
  Var x = leaf({6, kBatch, kInput}, 2);

  /// A loss whose gradient for `output` is given.
  void seed(const Var& output, float scale) {
    const GradientTarget d = output.gradient();
    ASSERT_FALSE(d.accumulate);
    copy_from_host(d.tensor, read(filled(device, output.shape(), scale)).data());
  }
  std::vector<std::vector<float>> all_gradients() {
    tape.backward();
    EXPECT_TRUE(tape.unreached_parameters().empty());
    std::vector<std::vector<float>> result;
    for (const Tensor& g : gradients) result.push_back(read(g));
    return result;
  }
};

TEST(RecurrentSequenceRule, TheFinalStateIsTheLastStep) {
  for (const Device& device : test::devices()) {
    Layer layer{device};
    const RecurrentOutput out =
        recurrent_sequence(cell_kind("lstm"), layer.x, layer.parameters, layer.initial);
    EXPECT_EQ(out.h.shape(), (Shape{6, kBatch, kWidth}));
    EXPECT_EQ(out.last[0].shape(), (Shape{kBatch, kWidth}));
    EXPECT_EQ(read(out.last[0].value()), read(out.h.value().slice(5, 1)));
  }
}

// Two ways to say the same loss: through h_last, and through the last step of h.
TEST(RecurrentSequenceRule, AGradientOfTheFinalStateIsOneOfTheLastStep) {
  for (const Device& device : test::devices()) {
    Layer first{device}, second{device};
    const RecurrentOutput a =
        recurrent_sequence(cell_kind("lstm"), first.x, first.parameters, first.initial);
    first.seed(a.last[0], 1);
    const RecurrentOutput b =
        recurrent_sequence(cell_kind("lstm"), second.x, second.parameters, second.initial);
    const GradientTarget d = b.h.gradient();
    std::vector<float> values(6 * kBatch * kWidth, 0.0F);
    const std::vector<float> last = read(filled(device, {kBatch, kWidth}, 1));
    std::copy(last.begin(), last.end(), values.end() - kBatch * kWidth);
    copy_from_host(d.tensor, values.data());
    EXPECT_EQ(first.all_gradients(), second.all_gradients());
  }
}

// What the tape rule hands on from one op to the next: state, its gradient, shared weights.
TEST(RecurrentSequenceRule, TwoWindowsInOneTapeAreOneSequence) {
  for (const Device& device : test::devices()) {
    Layer whole{device}, cut{device};
    const RecurrentOutput all =
        recurrent_sequence(cell_kind("lstm"), whole.x, whole.parameters, whole.initial);
    whole.seed(all.last[0], 1), whole.seed(all.last[1], 3);
    const auto want = whole.all_gradients();

    const Var early = cut.tape.constant(cut.x.value().slice(0, 4));
    const Var late = cut.tape.constant(cut.x.value().slice(4, 2));
    const RecurrentOutput one =
        recurrent_sequence(cell_kind("lstm"), early, cut.parameters, cut.initial);
    const RecurrentOutput two =
        recurrent_sequence(cell_kind("lstm"), late, cut.parameters, one.last);
    cut.seed(two.last[0], 1), cut.seed(two.last[1], 3);
    cut.tape.backward();
    for (std::size_t g = 0; g + 1 < want.size(); ++g) {  // all but x, which is a constant here
      const std::vector<float> got = read(cut.gradients[g]);
      for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[g][i], 1e-5) << g;
    }
  }
}

TEST(RecurrentSequenceRule, ASequenceOfNoStepsHasNoFinalState) {
  Layer layer{Cpu{}};
  const Var nothing = layer.tape.constant(layer.x.value().slice(0, 0));
  EXPECT_THROW(recurrent_sequence(cell_kind("lstm"), nothing, layer.parameters), ShapeError);
}

}  // namespace
}  // namespace carousel
