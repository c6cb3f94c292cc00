#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/training/trainer.h"
#include "kernels/common/check.h"
#include "tests/support/failing_calls.h"
#include "tests/support/files.h"
#include "tests/support/scripted.h"

// Training whose losses are given numbers, so that every decision is known beforehand.
namespace carousel::test {

inline constexpr std::int64_t kEpoch = 4;  ///< batches; batch n counts n + 1 targets

/// A score that is better the higher it is: the mean of the batches' losses.
class Points final : public Metric {
 public:
  void add(const Batch& batch, const Objective& objective) override { mean_.add(batch, objective); }
  std::vector<Score> scores() const override { return mean_.scores(); }
  Score decisive() const override { return mean_.decisive(); }
  bool higher_is_better() const override { return true; }

 private:
  MeanLoss mean_{"points"};
};

inline Schedule steady_rate() {
  Schedule schedule;
  schedule.learning_rate = 0.125;
  return schedule;
}

struct Scenario {
  TrainConfig config;
  Schedule schedule = steady_rate();
  OptimizerConfig optimizer{.kind = "sgd"};
  std::vector<float> validation{};  ///< what the evaluations find; none: there are none
  bool higher_is_better = false;
  std::function<float(std::int64_t)> loss = [](std::int64_t) { return 1.0F; };  ///< of batch n
  ScriptedModel::Script script = ScriptedModel::loss_of_batch;
  bool graph = true;
};

/// Writes down what it hears: "4" a report of step 4, "v" with an evaluation, "s" a checkpoint, "b"
/// the best one, "p" a sample.
class Recorder final : public TrainObserver {
 public:
  explicit Recorder(std::int64_t stop_after) : stop_after_(stop_after) {}
  void on_step(const TrainingRun& run, const Arena&) override {
    if (run.step == stop_after_) stop = true;
  }
  void on_report(const Report& report) override {
    reports.push_back(report);
    events +=
        fmt::format("{}{}{}", events.empty() ? "" : " ", report.step, report.validation ? "v" : "");
  }
  void on_save(std::int64_t, bool is_best) override { events += is_best ? "b" : "s"; }
  void on_sample(const TrainingRun&) override { events += "p"; }

  std::atomic<bool> stop = false;
  std::vector<Report> reports;
  std::string events;

 private:
  std::int64_t stop_after_;
};

struct Outcome {
  TrainEnd end{};
  std::int64_t step = 0;
  std::string events, error;
  std::vector<Report> reports;
  float weight = 0;
  float average = 0;  ///< of the weights, or the weight
  Scalars scalars;    ///< of a checkpoint of the end
  std::string best;   ///< name of the best checkpoint
  std::vector<std::int64_t> saved;
};

/// Trains in the folder, from its last checkpoint if it has one.
inline Outcome train(const Device& device, const Scenario& scenario,
                     const std::filesystem::path& folder, std::int64_t stop_after = -1) {
  ScriptedModel model(device, scenario.script);
  Optimizer optimizer(scenario.optimizer, model.parameters());
  ScriptedBatches data(loss_batches(device,
                                    [&](const DataPosition& at) {
                                      const std::int64_t n = at.epoch * kEpoch + at.index;
                                      return Given{scenario.loss(n), n + 1};
                                    }),
                       kEpoch);
  TrainingRun run{
      .model = model, .optimizer = optimizer, .data = data, .state = model.initial_state(1)};
  FailingCalls calls;  // none fails, and nothing waits for the disk
  CheckpointFolder checkpoints(folder, static_cast<int>(scenario.config.keep), calls);
  if (const auto last = checkpoints.last()) restore(run, SavedCheckpoint(*last));
  const auto every = std::max<std::int64_t>(scenario.config.evaluate_every, 1);
  ScriptedBatches validation(loss_batches(device,
                                          [&](const DataPosition&) {
                                            return Given{scenario.validation.at(
                                                static_cast<std::size_t>((run.step - 1) / every))};
                                          }),
                             /*per_epoch=*/1);
  Recorder recorder(stop_after);
  const auto metrics = [&] {
    Metrics result;
    if (scenario.higher_is_better) {
      result.push_back(std::make_unique<Points>());
    } else {
      result.push_back(std::make_unique<MeanLoss>("nats"));
    }
    return result;
  };
  Trainer trainer(run, {.config = scenario.config,
                        .step = {.schedule = scenario.schedule,
                                 .graph = scenario.graph,
                                 .refused = [](const std::string& why) { ADD_FAILURE() << why; }},
                        .validation = scenario.validation.empty() ? nullptr : &validation,
                        .metrics = metrics,
                        .metadata = {},
                        .checkpoints = checkpoints,
                        .observer = recorder});
  Outcome outcome;
  outcome.error = error_text<Error>([&] { outcome.end = trainer.train(recorder.stop); });
  outcome.step = run.step;
  outcome.events = recorder.events;
  outcome.reports = recorder.reports;
  outcome.weight = read<float>(model.parameters().weight(0))[0];
  outcome.average = read<float>(optimizer.average().of(0))[0];
  outcome.scalars = checkpoint_data(run, {}).scalars;
  if (const auto best = checkpoints.best()) outcome.best = best->filename().string();
  outcome.saved = checkpoints.steps();
  return outcome;
}

inline Outcome train(const Device& device, const Scenario& scenario) {
  const TemporaryFolder folder;
  return train(device, scenario, folder.path());
}

}  // namespace carousel::test
