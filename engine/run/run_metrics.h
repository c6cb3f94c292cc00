#pragma once

#include <filesystem>

#include "engine/files/metrics_file.h"
#include "engine/training/trainer.h"

namespace carousel {

/// Writes a line of metrics.jsonl for each report, and passes everything on to another observer.
///
/// What a reader may rely on. Steps rise from line to line. `loss`, its parts and tokens_per_second
/// are means over the steps since the line before; everything else is of the line's step, and
/// `seconds` leaves out the time between sessions. A run that was killed and resumed has the lines
/// of an unbroken one. One that was stopped has one more for each stop, of the step it stopped at,
/// if that has no line anyway, so that the means of the next line begin there; all else is equal.
class RunMetrics final : public TrainObserver {
 public:
  /// Lines after `last_step` are cut off; −1 starts afresh. `next` may be null.
  RunMetrics(const std::filesystem::path& file, std::int64_t last_step, TrainObserver* next);

  /// Seconds of training on the last line when this was made; 0 without one.
  double seconds() const { return seconds_; }
  /// The run's folder has moved; see MetricsFile.
  void move_to(const std::filesystem::path& file) { file_.move_to(file); }

  void on_step(const TrainingRun& run, const Arena& arena) override;
  void on_report(const Report& report) override;
  void on_progress(std::string_view phase, std::int64_t done, std::int64_t all) override;
  void on_fit(const FitReport& report) override;
  void before_save() override;
  void on_save(std::int64_t step, bool is_best) override;
  void on_sample(const TrainingRun& run) override;
  void on_graph_refused(const std::string& why) override;
  void on_notice(const std::string& what) override;

 private:
  double seconds_;
  MetricsFile file_;
  TrainObserver* next_;
};

}  // namespace carousel
