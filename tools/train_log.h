#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "engine/files/metrics_file.h"
#include "engine/model/generator.h"
#include "engine/training/trainer.h"
#include "tools/explain.h"
#include "tools/progress.h"

namespace carousel {

/// Seconds of training on the last line of a run's metrics; 0 if there is none.
double seconds_so_far(const std::filesystem::path& metrics_file);

/// What a training run tells: lines of metrics to the run's folder, progress and samples to
/// standard error.
class TrainLog final : public TrainObserver {
 public:
  TrainLog(const std::filesystem::path& run_folder, std::int64_t step, const TrainConfig& config,
           const Vocabulary& vocabulary, const Device& device);

  /// Listens from now on, and tells after the next step what that was made of.
  void explain(const MachineConfig& machine) { explanation_.emplace(device_, machine); }

  void on_step(const TrainingRun& run, const Arena& arena) override;
  void on_report(const Report& report) override;
  void before_save() override { metrics_.sync(); }
  void on_save(std::int64_t step, bool is_best) override;
  void on_sample(const TrainingRun& run) override;
  void on_graph_refused(const std::string& why) override;
  ProgressBar& progress() { return progress_; }

 private:
  MetricsFile metrics_;
  const TrainConfig& config_;
  const Vocabulary& vocabulary_;
  Device device_;
  ProgressBar progress_;
  std::string note_;
  bool memory_told_ = false;
  std::optional<Explanation> explanation_;
};

}  // namespace carousel
