#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/run/run_config.h"
#include "engine/training/training_run.h"

namespace carousel {

/// A run as it stands, whether its model is trained or fitted.
struct RunStatus {
  const RunConfig& config;
  const Corpus& corpus;
  const Device& device;
  Model& model;
  const BatchSource* batches;      ///< to train on; null if the model is fitted
  const BatchSource* validation;   ///< null if there is none
  std::int64_t step = 0;           ///< or iterations of a fit
  std::int64_t tokens = 0;         ///< or examples, trained on or fitted to
  double seconds = 0;              ///< spent so, over all sessions
  std::optional<Score> best = {};  ///< the deciding score of the best evaluation
};

/// Everything that training works with, made as a config says: model, optimiser, batches, and the
/// run at its beginning. The config and the corpus must outlive it.
class Training {
 public:
  Training(const RunConfig& config, const Corpus& corpus, const Device& device);
  Training(const Training&) = delete;  // the run refers to what is here
  Training& operator=(const Training&) = delete;

  const RunConfig& config;
  const Corpus& corpus;
  const Device device;
  const std::unique_ptr<Model> model;
  Optimizer optimizer;
  const std::unique_ptr<BatchSource> batches;
  TrainingRun run;

  /// The batches to evaluate on, made at the first call; null if the config has no validation data.
  BatchSource* validation() const;
  MakeMetrics metrics() const;
  RunStatus status() const;
  TrainingStepParts step_parts(bool graph, StepGraphs::Tell refused) const;

 private:
  mutable std::unique_ptr<BatchSource> validation_;
};

/// How a run's training ended.
enum class RunEnd : std::uint8_t { finished, interrupted, early, nothing_to_do };

struct TrainOptions {
  bool resume = false;                      ///< continue the run that is in the folder
  TrainObserver* observer = nullptr;        ///< hears of it, besides the run's metrics.jsonl
  const std::atomic<bool>* stop = nullptr;  ///< set at any time: stop after the step, and save
  /// Called once each, with the run as it stands: before the first step, and after the last, with
  /// the run's folder, which may have been renamed.
  std::function<void(const RunStatus&)> begin = {};
  std::function<void(const RunStatus&, RunEnd, const std::filesystem::path&)> end = {};

  const std::atomic<bool>& stop_flag() const;  ///< never set if `stop` is null
};

/// The deciding score of an Evaluation::cost(); nothing of infinity, which stands for none.
std::optional<Score> best_score(const RunConfig& config, const Vocabularies& vocabularies,
                                double cost);

/// Trains as the config says, or fits an estimator, in the folder of the run: config.toml,
/// metrics.jsonl, checkpoints/, and the tokens of its texts in cache/. ConfigError for a folder that has something else in it or
/// whose run was another's, IoError for one that is in use.
RunEnd train(const RunConfig& config, const std::filesystem::path& folder,
             const TrainOptions& options = {});

}  // namespace carousel
