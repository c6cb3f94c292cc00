#pragma once

#include <optional>
#include <string>

#include "engine/run/training.h"
#include "tools/console/explain.h"
#include "tools/console/progress.h"

namespace carousel {

/// "loss 1.2345 nats per token", "accuracy 0.9123".
std::string score_text(const Score& score);

/// The same, and the perplexity where it is the loss of a model of words.
std::string score_text(const Score& score, const Training& training);

/// What a batch counts: "example" of labelled data, otherwise "token".
const char* counted_name(const Training& training);

/// Progress and samples of a training run, on standard error.
class TrainLog final : public TrainObserver {
 public:
  explicit TrainLog(const RunConfig& config) : config_(config) {}

  /// Explains, after the next step, what that was made of.
  void explain() { explaining_ = true; }
  /// Before the first step.
  void begin(const Training& training);

  void on_step(const TrainingRun& run, const Arena& arena) override;
  void on_report(const Report& report) override;
  void on_save(std::int64_t step, bool is_best) override;
  void on_sample(const TrainingRun& run) override;
  void on_graph_refused(const std::string& why) override;
  void on_notice(const std::string& what) override { progress_.line(what); }
  ProgressBar& progress() { return progress_; }
  /// The last report of this session.
  const std::optional<Report>& last_report() const { return last_; }
  /// "validation loss nan" if the last evaluation was not finite; otherwise nothing.
  const std::string& last_fault() const { return fault_; }

 private:
  const RunConfig& config_;
  const Training* training_ = nullptr;
  ProgressBar progress_;
  std::string note_, fault_;
  bool memory_told_ = false, explaining_ = false;
  std::optional<Explanation> explanation_;
  std::optional<Report> last_;
};

}  // namespace carousel
