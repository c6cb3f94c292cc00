// Steps of several micro-batches, held against steps of one batch with all their rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/models/compared_side.h"
#include "tests/support/device.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::Side;

constexpr std::int64_t kSteps = 9;  // more than an epoch of either model

Side side(const std::string& kind, const Device& device, int batch, int accumulate,
          std::vector<std::string> options = {}) {
  options.insert(options.end(), {"train.batch=" + std::to_string(batch),
                                 "train.accumulate=" + std::to_string(accumulate)});
  return {kind, options, device, "f32"};
}

void expect_close(const Tensor& a, const Tensor& b, const std::string& name) {
  const std::vector<float> left = host_floats(a), right = host_floats(b);
  ASSERT_EQ(left.size(), right.size()) << name;
  float largest = 0, error = 0;
  for (std::size_t i = 0; i < left.size(); ++i) {
    largest = std::max(largest, std::abs(left[i]));
    error = std::max(error, std::abs(left[i] - right[i]));
  }
  EXPECT_TRUE(error <= 2e-5F * largest) << name << ": " << error << " of " << largest;
}

std::string bits(const TrainingRun& run) {
  std::string all;
  for (const NamedTensor& named : checkpoint_data(run, {}).weights) {
    std::string bytes(named.tensor.bytes(), '\0');
    copy_to_host(named.tensor, bytes.data());
    all += bytes;
  }
  for (const StateTensor& tensor : run.state.tensors) {
    std::string bytes(tensor.value.bytes(), '\0');
    copy_to_host(tensor.value, bytes.data());
    all += bytes;
  }
  return all;
}

class Accumulated : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, Accumulated, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(Accumulated, MicroBatchesMakeTheStepOfOneBatchOfAllRows) {
  // Learnt initial states mark rows of the state; windows are drawn, so that shapes change.
  const std::vector<std::pair<std::string, std::vector<std::string>>> models{
      {"ngram_lm", {"train.window_deviation=1", "train.reset_probability=0.3"}},
      {"recurrent_lm",
       {"model.learn_initial_state=true", "train.window_deviation=1", "train.reset_probability=0.3",
        "train.random_start=true"}},
      {"recurrent_lm", {"model.tie_weights=true", "model.embed=9", "model.weight_drop=0"}},
      {"transformer_lm", {"model.heads=2", "train.window_deviation=1"}},
      {"classifier", {"model.pooling=mean", "model.bidirectional=true"}}};
  for (auto [kind, options] : models) {
    SCOPED_TRACE(kind);
    options.insert(options.end(), {"model.dropout=0", "optimizer.kind=sgd"});
    Side whole = side(kind, GetParam(), 6, 1, options),
         parts = side(kind, GetParam(), 2, 3, options);
    EXPECT_EQ(whole.training.batches->batches_per_epoch(),
              parts.training.batches->batches_per_epoch());
    for (std::int64_t step = 1; step <= kSteps; ++step) {
      whole.traced.step();
      parts.traced.step();
      const auto a = whole.traced.result(), b = parts.traced.result();
      ASSERT_NEAR(a.loss, b.loss, 2e-6 * a.loss) << step;
      ASSERT_NEAR(a.gradient_norm, b.gradient_norm, 1e-5 * a.gradient_norm) << step;
      EXPECT_EQ(a.learning_rate, b.learning_rate);
      EXPECT_EQ(whole.training.run.tokens, parts.training.run.tokens);
    }
    EXPECT_EQ(whole.training.run.data.position(), parts.training.run.data.position());
    for (std::size_t i = 0; i < whole.training.run.state.tensors.size(); ++i) {
      const StateTensor& tensor = whole.training.run.state.tensors[i];
      if (tensor.value.dtype() != DType::f32) continue;
      expect_close(tensor.value, parts.training.run.state.tensors[i].value, tensor.name);
    }
    const Parameters &a = whole.training.model->parameters(),
                     &b = parts.training.model->parameters();
    for (std::size_t i = 0; i < a.count(); ++i) expect_close(a.weight(i), b.weight(i), a.name(i));
  }
}

TEST_P(Accumulated, EveryMicroBatchHasMasksOfItsOwn) {
  Side a = side("recurrent_lm", GetParam(), 2, 2);
  TrainingStep step(a.training.run, {.schedule = a.config.schedule, .accumulate = 2});
  step.begin();
  const auto mask = [&](std::size_t micro_batch) {
    step.forward(micro_batch);
    for (const LabelledValue& value : step.tape().labelled()) {
      if (value.label.text() != "dropout after embedding") continue;
      std::vector<bool> zeros;
      for (const float x : host_floats(value.value)) zeros.push_back(x == 0);
      return zeros;
    }
    ADD_FAILURE() << "no dropout";
    return std::vector<bool>();
  };
  const auto first = mask(0), second = mask(1);
  EXPECT_EQ(first, mask(0));
  EXPECT_NE(first, second);
  EXPECT_TRUE(std::find(first.begin(), first.end(), true) != first.end());
}

TEST_P(Accumulated, GraphsResumedRunsAndComparisonsAreThoseOfOtherSteps) {
  for (const char* const kind : {"recurrent_lm", "transformer_lm"}) {
    SCOPED_TRACE(kind);
    const auto make = [&] { return side(kind, GetParam(), 2, 3, {"train.window_deviation=2"}); };
    Side eager = make(), graph = make(), resumed = make();
    TracedTraining graphs(
        graph.training.run,
        graph.training.step_parts(true, [](const auto&why) { ADD_FAILURE() << why; })),
        steps(eager.training.run, eager.training.step_parts(false, {}));
    const test::TemporaryFolder folder;
    for (int i = 0; i < kSteps; ++i) {
      steps.step();
      graphs.step();
      if (i != 3) continue;
      CheckpointFolder checkpoints(folder.path(""), 0);
      checkpoints.save(4, checkpoint_data(eager.training.run, {}), false);
      restore(resumed.training.run, SavedCheckpoint(*checkpoints.last()));
    }
    TracedTraining rest(resumed.training.run, resumed.training.step_parts(false, {}));
    for (int i = 4; i < kSteps; ++i) rest.step();
    EXPECT_TRUE(bits(eager.training.run) == bits(graph.training.run));
    EXPECT_TRUE(bits(eager.training.run) == bits(resumed.training.run));
    EXPECT_EQ(graphs.graphs().launched() > 0, !is_cpu(GetParam()));

    Side cpu = side(kind, Cpu{}, 2, 3), here = side(kind, GetParam(), 2, 3);
    Comparison comparison(Rounding::f32);
    for (int step = 0; step < 3; ++step) compare_step(cpu.traced, here.traced, comparison);
    EXPECT_TRUE(comparison.holds())
        << report_text({.a = "cpu", .b = "here", .steps = 3, .comparison = comparison});
  }
}

TEST(Accumulate, WhatIsNoSumOverRowsIsRefused) {
  for (const char* const penalty : {"model.activation_penalty=1", "model.temporal_penalty=1",
                                    "model.gradient_norm_penalty=1"}) {
    Side a = side("recurrent_lm", Cpu{}, 2, 2, {penalty, "model.cell=tanh"});
    EXPECT_NE(test::error_text<ConfigError>([&] { a.traced.step(); }).find("train.accumulate"),
              std::string::npos);
  }
  State state{{{.name = "cache", .value = Tensor(Cpu{}, {2, 4}, DType::f32), .growth_axis = 1}}};
  EXPECT_EQ(test::error_text<Error>([&] { state.rows(0, 1); }),
            "the state's 'cache' cannot be divided into rows");
}

}  // namespace
}  // namespace carousel
