#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/training/trainer.h"
#include "models/recurrent/recurrent_lm.h"
#include "tests/support/batches.h"
#include "tests/support/device.h"

// A training step as one CUDA graph, held against the same step queued kernel by kernel.

namespace carousel {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr std::int64_t kSteps = 15;  // slow there
#else
constexpr std::int64_t kSteps = 50;
#endif
constexpr std::int64_t kBatch = 3;

/// What a step may not do inside a graph, done by a model in every step.
using Mistake = std::function<void(const Device&)>;

class ClumsyModel final : public RecurrentLm {
 public:
  ClumsyModel(const RecurrentLmConfig& config, const Device& device, DType compute, Mistake mistake)
      : RecurrentLm(config, device, compute, /*seed=*/7),
        device_(device),
        mistake_(std::move(mistake)) {}
  Objective objective(Pass& pass, const Batch& batch, const State& state) override {
    const Objective objective = RecurrentLm::objective(pass, batch, state);
    if (mistake_ && pass.training()) mistake_(device_);
    return objective;
  }

 private:
  Device device_;
  Mistake mistake_;
};

class Watcher final : public TrainObserver {
 public:
  explicit Watcher(const Device& device) : device_(device) {}
  void on_step(const TrainingRun&, const Arena&) override {
    allocations.push_back(memory_use(device_).allocations);
  }
  void on_report(const Report& report) override { reports.push_back(report); }

  std::vector<Report> reports;
  std::vector<std::string> refusals;
  std::vector<std::size_t> allocations;  ///< so far, after each step

 private:
  Device device_;
};

Metrics language_metrics() {
  Metrics metrics;
  metrics.push_back(std::make_unique<MeanLoss>("nats per token"));
  return metrics;
}

/// The numbers of a tensor, to the bit.
std::string bits(const Tensor& tensor) {
  std::string bytes(tensor.bytes(), '\0');
  copy_to_host(tensor, bytes.data());
  return bytes;
}

struct Outcome {
  std::vector<double> losses, norms, validations;
  std::vector<std::pair<std::string, std::string>> tensors;  ///< of the checkpoint
  std::vector<std::string> refusals;
  std::vector<std::size_t> allocations;
  std::int64_t captured = 0, launched = 0;
};

struct Case {
  bool graph = true;
  DType compute = DType::f32;
  std::string optimizer = "adamw";
  Mistake mistake{};
  std::int64_t evaluate_every = 0;
};

/// Trains on batches of whatever shapes `data` has.
Outcome train(const Device& device, const Case& c, BatchSource& data, BatchSource* validation,
              std::int64_t vocabulary) {
  const test::TemporaryFolder folder;
  ClumsyModel model({.vocabulary = vocabulary,
                     .embed = 6,
                     .encoder = {.hidden = 11, .layers = 2, .dropout = 0.3}},
                    device, c.compute, c.mistake);
  Optimizer optimizer({.kind = c.optimizer, .momentum = 0.9, .clip_norm = 1}, model.parameters());
  TrainingRun run{
      .model = model, .optimizer = optimizer, .data = data, .state = model.initial_state(kBatch)};
  // Several steps between reports, so that they are queued before the first of them runs.
  const TrainConfig config{.steps = kSteps,
                           .batch = kBatch,
                           .seed = 3,
                           .report_every = 7,
                           .evaluate_every = c.evaluate_every,
                           .save_every = 0};
  const Schedule schedule{.kind = "cosine",
                          .learning_rate = 1e-2,
                          .steps = kSteps,
                          .warm_up = 5,
                          .final_fraction = 0.1};
  CheckpointFolder checkpoints(folder.path());
  const Metadata metadata;
  Watcher watcher(device);
  Trainer trainer(
      run, {.config = config,
            .step = {.schedule = schedule,
                     .seed = 3,
                     .graph = c.graph,
                     .refused = [&](const std::string& why) { watcher.refusals.push_back(why); }},
            .validation = validation,
            .metrics = language_metrics,
            .metadata = metadata,
            .checkpoints = checkpoints,
            .observer = watcher});
  trainer.train(std::atomic<bool>{false});

  Outcome outcome{.losses = {},
                  .norms = {},
                  .validations = {},
                  .tensors = {},
                  .refusals = watcher.refusals,
                  .allocations = watcher.allocations,
                  .captured = trainer.graphs().captured(),
                  .launched = trainer.graphs().launched()};
  for (const Report& report : watcher.reports) {
    outcome.losses.push_back(report.loss);
    outcome.norms.push_back(report.gradient_norm);
    if (report.validation) outcome.validations.push_back(report.validation->scores[0].value);
  }
  const CheckpointData saved = checkpoint_data(run, metadata);
  for (const auto* tensors : {&saved.weights, &saved.state}) {
    for (const NamedTensor& named : *tensors) {
      outcome.tensors.emplace_back(named.name, bits(named.tensor));
    }
  }
  return outcome;
}

void expect_same_bits(const Outcome& graph, const Outcome& eager) {
  EXPECT_EQ(graph.losses, eager.losses);
  EXPECT_EQ(graph.norms, eager.norms);
  EXPECT_EQ(graph.validations, eager.validations);
  ASSERT_EQ(graph.tensors.size(), eager.tensors.size());
  for (std::size_t i = 0; i < graph.tensors.size(); ++i) {
    EXPECT_EQ(graph.tensors[i].first, eager.tensors[i].first);
    EXPECT_TRUE(graph.tensors[i].second == eager.tensors[i].second) << graph.tensors[i].first;
  }
}

/// A text whose every epoch is a window of 7 steps with a fresh state, then one of 4 with the state
/// carried into it; documents end inside both.
struct AlternatingWindows {
  static constexpr std::int64_t kVocabulary = 5;
  explicit AlternatingWindows(const Device& device)
      : tokens(test::tokens_of(folder, "abbdaacbd.cbacdda.bcdabcb.dacbdcabd",
                               {TokenKind::character, Newline::text, false})),
        train(stream_batches(device, tokens, {.batch = kBatch, .window = 7, .document_end = 4})),
        validation(evaluation_batches(device, tokens, {.batch = 2, .window = 9})) {}

  test::TemporaryFolder folder;
  TokenRange tokens;
  std::unique_ptr<BatchSource> train, validation;
};

class TrainGraph : public testing::Test {
 protected:
  void SetUp() override { CAROUSEL_SKIP_WITHOUT_CUDA(); }
  static const Device& device() { return *test::cuda_device(); }

  static Outcome train_windows(const Case& c) {
    const AlternatingWindows text(device());
    EXPECT_EQ(text.train->batches_per_epoch(), 2);
    BatchSource* const validation = c.evaluate_every > 0 ? text.validation.get() : nullptr;
    return train(device(), c, *text.train, validation, AlternatingWindows::kVocabulary);
  }
};

TEST_F(TrainGraph, GivesTheBitsOfEagerStepsForEveryOptimizerAndType) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const char* const optimizer : {"adamw", "sgd"}) {
      SCOPED_TRACE(std::string(name(compute)) + " " + optimizer);
      Case c{.compute = compute, .optimizer = optimizer};
      const Outcome graph = train_windows(c);
      c.graph = false;
      const Outcome eager = train_windows(c);
      expect_same_bits(graph, eager);
      // Two lengths, seen once each before they are captured.
      EXPECT_EQ(graph.captured, 2);
      EXPECT_EQ(graph.launched, kSteps - 2);
      EXPECT_EQ(eager.captured + eager.launched, 0);
      EXPECT_TRUE(graph.refusals.empty() && eager.refusals.empty());
      EXPECT_EQ(graph.allocations.back(), graph.allocations[1]) << "both lengths were seen";
    }
  }
}

TEST_F(TrainGraph, GivesTheSameBitsWithEvaluationsBetween) {
  Case c{.evaluate_every = kSteps / 5};
  const Outcome graph = train_windows(c);
  c.graph = false;
  const Outcome eager = train_windows(c);
  EXPECT_EQ(graph.validations.size(), 5U);
  expect_same_bits(graph, eager);
  EXPECT_EQ(graph.launched, kSteps - 2);
}

TEST_F(TrainGraph, GivesTheSameBitsForLinesOfTwoLengths) {
  std::string lines;
  for (int i = 0; i < 24; ++i) lines += i % 3 == 0 ? "badcabdcabdc\n" : "dab\n";
  const auto train_lines = [&](bool graph) {
    const test::TemporaryFolder folder;
    const TokenRange tokens =
        test::tokens_of(folder, lines, {TokenKind::byte, Newline::line, false});
    const auto data = line_batches(device(), tokens, {.batch = kBatch, .begin = 256, .seed = 5});
    return train(device(), {.graph = graph}, *data, nullptr, 258);
  };
  const Outcome graph = train_lines(true), eager = train_lines(false);
  expect_same_bits(graph, eager);
  EXPECT_EQ(graph.captured, 2);
  EXPECT_EQ(graph.launched, kSteps - 2);
}

TEST_F(TrainGraph, AStepThatNoGraphCanHoldStaysEagerAndSaysWhyOnce) {
  const auto uploads = [](const Device& on) {
    const static auto& to = *new Tensor(on, {1}, DType::f32);
    const float value = 1;
    copy_from_host(to, &value);
  };
  const auto allocates = [](const Device& on) { Tensor(on, {1}, DType::f32); };
  const auto waits = [](const Device& on) {
    const static auto& from = *new Tensor(on, {1}, DType::f32);
    float value = 0;
    copy_to_host(from, &value);
  };
  const Outcome eager = train_windows({.graph = false});
  const std::vector<std::pair<Mistake, std::string>> mistakes{
      {uploads, "copying to the device cannot be part of a graph"},
      {allocates, "allocating device memory cannot be part of a graph"},
      {waits, "not permitted when stream is capturing"}};
  for (const auto& [mistake, why] : mistakes) {
    SCOPED_TRACE(why);
    const Outcome clumsy = train_windows({.mistake = mistake});
    expect_same_bits(clumsy, eager);
    EXPECT_EQ(clumsy.captured, 0);
    EXPECT_EQ(clumsy.launched, 0);
    ASSERT_EQ(clumsy.refusals.size(), 1U);
    EXPECT_NE(clumsy.refusals[0].find(why), std::string::npos) << clumsy.refusals[0];
  }
}

TEST(TrainGraphOnCpu, IsNoGraphAndNothingToSpeakOf) {
  const AlternatingWindows text(Cpu{});
  const Outcome outcome = train(Cpu{}, {}, *text.train, nullptr, AlternatingWindows::kVocabulary);
  EXPECT_EQ(outcome.captured + outcome.launched, 0);
  EXPECT_TRUE(outcome.refusals.empty());
}

}  // namespace
}  // namespace carousel
