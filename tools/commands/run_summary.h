#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace carousel {

/// The best validation score of a run.
struct Best {
  std::string metric{};
  double value = 0;
  double cost = 0;  ///< the same, where less is better
  std::int64_t step = 0;
};

/// What a run's folder tells.
struct RunSummary {
  std::filesystem::path folder;
  std::string name;
  std::vector<std::pair<std::string, std::string>> config{};  ///< "model.hidden", "256"
  std::int64_t step = 0, steps = 0, tokens = 0;  ///< steps: 0 of a model that is fitted
  double seconds = 0;
  std::optional<Best> best{};
  std::string remark{};  ///< what is missing or broken

  /// The text of a config's value; null without one.
  const std::string* find(const std::string& key) const;
  std::optional<double> tokens_per_second() const;
};

/// The runs that the folders are or have in them, in their order: a folder that is no run stands for
/// those within. What is broken or no run has a summary that says so. ConfigError for a path that is
/// no folder.
std::vector<RunSummary> summaries(const std::vector<std::string>& folders);

}  // namespace carousel
