#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "engine/comparison/comparison.h"

namespace carousel {

/// What a run's metrics.jsonl says of one report.
struct RecordedReport {
  std::int64_t step = 0;
  double loss = 0;  ///< nats per token, mean over the steps since the report before
  double gradient_norm = 0, learning_rate = 0;  ///< of this step
};

/// The reports of RUN/metrics.jsonl up to step `last`. IoError if there is no such file, FormatError
/// with its line for one that lacks a number or does not follow the line before.
std::vector<RecordedReport> recorded_reports(const std::filesystem::path& run, std::int64_t last);

/// Trains from the run's beginning to its last report here, and compares at every one.
void replay(const std::vector<RecordedReport>& reports, TracedTraining& training,
            Comparison& comparison);

}  // namespace carousel
