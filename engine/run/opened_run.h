#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/run/run_config.h"
#include "engine/run/run_folder.h"
#include "engine/run/run_metrics.h"
#include "engine/run/starting_point.h"
#include "engine/training/checkpoint.h"

namespace carousel {

/// The checkpoint that a run goes on from.
struct Resumed {
  SavedCheckpoint saved;
  RunConfig config;                  ///< that it was trained with
  std::vector<std::string> changes;  ///< of options since then
};

/// A run's folder, locked, and what its model learns: where training and fitting begin.
struct OpenedRun {
  OpenedRun(const RunConfig& of, const std::filesystem::path& path, bool resume);

  std::filesystem::path metrics_file() const { return folder.path() / "metrics.jsonl"; }
  void write_config() const;
  /// Follows a folder that was moved. To call before a checkpoint is saved.
  void find_folder(RunMetrics& observer);

  const RunConfig& config;
  const Device device;
  RunFolder folder;
  CheckpointFolder checkpoints;
  std::unique_ptr<Resumed> former;  ///< null if the run begins
  StartingPoint start;
  const Corpus corpus;
};

}  // namespace carousel
