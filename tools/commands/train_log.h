#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/run/training.h"
#include "tools/console/explain.h"
#include "tools/console/progress.h"

namespace carousel {

/// "loss 1.2345 nats per token", "accuracy 0.9123".
std::string score_text(const Score& score);

/// The same, and the perplexity where it is the loss of a model of words.
std::string score_text(const Score& score, const RunConfig& config, const Corpus& corpus);

/// What a batch counts: "example" of labelled data, otherwise "token".
const char* counted_name(const Corpus& corpus);

/// Progress and samples of a training run, on standard error.
class TrainLog final : public TrainObserver {
 public:
  explicit TrainLog(const RunConfig& config) : config_(config) {}

  /// Explains, after the next step, what that was made of.
  void explain() { explaining_ = true; }
  /// Before the first step.
  void begin(const RunStatus& run);

  void on_step(const TrainingRun& run, const Arena& arena) override;
  void on_report(const Report& report) override;
  void on_progress(std::string_view phase, std::int64_t done, std::int64_t all) override;
  void on_fit(const FitReport& report) override;
  void on_save(std::int64_t step, bool is_best) override;
  void on_sample(const TrainingRun& run) override;
  void on_graph_refused(const std::string& why) override;
  void on_notice(const std::string& what) override { progress_.line(what); }
  ProgressBar& progress() { return progress_; }
  /// Of the last report of this session: the loss, and the evaluation.
  const std::optional<double>& last_loss() const { return loss_; }
  const std::optional<Evaluation>& last_validation() const { return validation_; }
  /// "validation loss nan" if the last evaluation was not finite; otherwise nothing.
  const std::string& last_fault() const { return fault_; }

 private:
  std::string validation_text(const Evaluation& validation, std::int64_t step);
  const RunConfig& config_;
  const Corpus* corpus_ = nullptr;
  std::optional<Device> device_;
  ProgressBar progress_;
  std::string note_, fault_;
  bool memory_told_ = false, explaining_ = false;
  std::optional<Explanation> explanation_;
  std::optional<double> loss_;
  std::optional<Evaluation> validation_;
};

}  // namespace carousel
