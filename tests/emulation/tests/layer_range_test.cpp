// The profiler ranges of a model: phase, layer and op, forward and backward.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/training/training_step.h"
#include "kernels/common/check.h"
#include "kernels/copy/copy.h"
#include "models/recurrent/recurrent_lm.h"
#include "tests/emulation/include/nvtx3/nvToolsExt.h"
#include "tests/support/device.h"
#include "tests/support/windows.h"

namespace carousel {
namespace {

/// An op whose run fails.
struct Failing {
  void check() const {}
  template <class D>
  void run(const D&) const {
    throw Error("failing: an op that fails");
  }
};

void fill(const Tensor& tensor) {
  run(tensor.device(), Fill<float>{.to = tensor.mutable_view<float, 1>(), .value = 1});
}

/// A value with the given backward rule, which a loss depends on.
Var value(Tape& tape, const Tensor& weight, std::function<void()> rule) {
  const Var w = tape.parameter(weight, weight);
  const Var y = tape.record(tape.tensor({1}, DType::f32), {w},
                            [rule = std::move(rule)](const Tensor&) { rule(); });
  y.gradient();
  return y;
}

class LayerRanges : public testing::TestWithParam<Device> {
 protected:
  void TearDown() override { EXPECT_TRUE(emulation::recorded_ranges().empty()); }
};
INSTANTIATE_TEST_SUITE_P(Devices, LayerRanges, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(LayerRanges, OfTheLstmLanguageModelNestBetweenPhaseAndOp) {
  const Device& device = GetParam();
  RecurrentLm model({.vocabulary = test::Windows::kVocabulary,
                     .embed = 3,
                     .encoder = {.hidden = 4, .layers = 2, .dropout = 0.5}},
                    device, DType::f32, /*seed=*/1);
  const Parameters& parameters = model.parameters();
  Optimizer optimizer({.kind = "sgd"}, parameters);
  test::Windows data(device, /*rows=*/2, {3});
  TrainingRun run{
      .model = model, .optimizer = optimizer, .data = data, .state = model.initial_state(2)};
  const Schedule schedule;
  TrainingStep step(run, {.schedule = schedule});
  step.begin();
  emulation::record_ranges();
  step.run();
  EXPECT_EQ(emulation::recorded_ranges(),
            (std::vector<std::string>{
                "forward",
                "forward/embedding",
                "forward/embedding/EmbeddingForward<float>",
                "forward/embedding/DropoutForward<float>",
                "forward/lstm layer 0",
                "forward/lstm layer 0/RecurrentSequenceForward<float>",
                "forward/lstm layer 0/DropoutForward<float>",
                "forward/lstm layer 1",
                "forward/lstm layer 1/RecurrentSequenceForward<float>",
                "forward/lstm layer 1/DropoutForward<float>",
                "forward/output",
                "forward/output/LinearCrossEntropy<float>",
                "backward",
                "backward/lstm layer 1",
                "backward/lstm layer 1/DropoutBackward<float>",
                "backward/lstm layer 1/RecurrentSequenceBackward<float>",
                "backward/lstm layer 1/RecurrentSequenceBackward<float>/ColumnSum<float>",
                "backward/lstm layer 0",
                "backward/lstm layer 0/DropoutBackward<float>",
                "backward/lstm layer 0/RecurrentSequenceBackward<float>",
                "backward/lstm layer 0/RecurrentSequenceBackward<float>/ColumnSum<float>",
                "backward/embedding",
                "backward/embedding/DropoutBackward<float>",
                "backward/embedding/EmbeddingBackward<float>",
                "backward/Cast<float, float>",  // the states carried to the next window
                "backward/Cast<float, float>",
                "backward/Cast<float, float>",
                "backward/Cast<float, float>",
                "optimizer",
                "optimizer/GlobalNorm<float>",
                "optimizer/WeightUpdate<Sgd, float>",
            }));
}

TEST_P(LayerRanges, MayNestAndAreLeftOutWhereNothingIsReplayed) {
  Arena arena(GetParam());
  Tape tape(arena, true);
  const Tensor weight(GetParam(), {1}, DType::f32);
  const auto rule = [&] { fill(weight); };
  emulation::record_ranges();
  {
    const Tape::Layer outer(tape, "outer");
    value(tape, weight, rule);
    const Tape::Layer inner(tape, "inner");
    value(tape, weight, rule);
    const Tape::Layer idle(tape, "idle");
    fill(weight);
  }
  value(tape, weight, rule);
  tape.backward();
  EXPECT_EQ(
      emulation::recorded_ranges(),
      (std::vector<std::string>{"outer", "outer/inner", "outer/inner/idle",
                                "outer/inner/idle/Fill<float>", "Fill<float>", "outer",
                                "outer/inner", "outer/inner/Fill<float>", "outer/Fill<float>"}));
}

TEST_P(LayerRanges, CloseWhenAnOpFails) {
  Arena arena(GetParam());
  Tape tape(arena, true);
  const Tensor weight(GetParam(), {1}, DType::f32);
  const auto forward = [&] {
    const Tape::Layer layer(tape, "layer");
    run(GetParam(), Failing{});
  };
  EXPECT_THROW(forward(), Error);
  {
    const Tape::Layer outer(tape, "outer");
    const Tape::Layer inner(tape, "inner");
    value(tape, weight, [&] { run(GetParam(), Failing{}); });
  }
  EXPECT_THROW(tape.backward(), Error);
  emulation::record_ranges();
  fill(weight);
  EXPECT_EQ(emulation::recorded_ranges(), std::vector<std::string>{"Fill<float>"});
}

}  // namespace
}  // namespace carousel
