#include "tools/commands/run_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "engine/files/atomic.h"
#include "engine/run/trained_model.h"
#include "engine/training/checkpoint.h"
#include "kernels/common/check.h"
#include "models/registry.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool is_run(const fs::path& folder) {
  return fs::exists(folder / "config.toml") || fs::exists(folder / "metrics.jsonl") ||
         fs::exists(folder / "checkpoints");
}

void take_config(const RunConfig& config, RunSummary& run) {
  if (!config.entry->fits) run.steps = config.train.steps;
  const Config all = Config::parse(config.toml(), "config", {});
  for (const Setting& setting : all.settings()) {
    const std::string* const text = text_of(setting);
    run.config.emplace_back(setting.name(), text != nullptr ? *text : setting.text);
  }
}

/// The lines of the run's metrics, but for one that is being written.
std::vector<Json> read_metrics(const fs::path& folder) {
  if (!fs::exists(folder / "metrics.jsonl")) return {};
  const std::string text = read_file(folder / "metrics.jsonl");
  std::istringstream lines(text.substr(0, text.rfind('\n') + 1));
  std::vector<Json> metrics;
  for (std::string line; std::getline(lines, line);) {
    metrics.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
    const Json& last = metrics.back();
    const auto is_number = [&](const char* key) {
      return last.contains(key) && last[key].is_number();
    };
    if (!last.is_object() || !is_number("step") || !is_number("tokens") || !is_number("seconds")) {
      throw FormatError(
          fmt::format("metrics.jsonl:{} is no report with step, tokens, seconds", metrics.size()));
    }
  }
  return metrics;
}

std::optional<Best> best_of(const fs::path& folder, const std::vector<Json>& metrics) {
  const std::optional<fs::path> path = CheckpointFolder(folder).best();
  if (!path) return {};
  const SavedCheckpoint saved(*path);
  Best best{.cost = saved.scalars().real("best_loss"), .step = saved.step()};
  for (const Json& line : metrics) {
    if (line["step"] != best.step) continue;
    for (const auto& [name, value] : line.items()) {
      if (!name.starts_with("validation_") || !value.is_number()) continue;
      best.metric = name.substr(std::string_view("validation_").size());
      best.value = value.get<double>();
      return best;
    }
  }
  return {};
}

void read_progress(RunSummary& run) {
  const std::vector<Json> metrics = read_metrics(run.folder);
  if (metrics.empty()) throw FormatError("no report yet");
  const Json& last = metrics.back();
  run.step = last["step"].get<std::int64_t>();
  run.tokens = last["tokens"].get<std::int64_t>();
  run.seconds = last["seconds"].get<double>();
  run.best = best_of(run.folder, metrics);
  if (!CheckpointFolder(run.folder).last()) run.remark = "no checkpoint yet";
}

RunSummary read_run(const fs::path& folder) {
  RunSummary run{.folder = folder,
                 .name = fs::absolute(folder / "").parent_path().filename().string()};
  try {
    const fs::path weights = folder / "model.safetensors";
    if (is_run(folder)) {
      take_config(RunConfig(folder / "config.toml", model_registry()), run);
      read_progress(run);
    } else if (fs::exists(weights)) {
      const SafetensorsFile file(weights);
      take_config(
          RunConfig(metadata_text(file, "carousel.config"), weights.string(), model_registry()),
          run);
      run.remark = "weights alone";
    } else {
      run.remark = "no run";
    }
  } catch (const std::exception& error) {  // a row for it, and the others go on
    run.remark = error.what();
  }
  return run;
}

}  // namespace

const std::string* RunSummary::find(const std::string& key) const {
  const auto found = std::find_if(config.begin(), config.end(),
                                  [&](const auto& setting) { return setting.first == key; });
  return found == config.end() ? nullptr : &found->second;
}

std::optional<double> RunSummary::tokens_per_second() const {
  if (seconds <= 0) return {};
  return static_cast<double>(tokens) / seconds;
}

std::vector<RunSummary> summaries(const std::vector<std::string>& folders) {
  std::vector<fs::path> paths;
  for (const std::string& name : folders) {
    const fs::path folder(name);
    if (!fs::is_directory(folder)) throw ConfigError(fmt::format("runs: {} is no folder", name));
    std::vector<fs::path> inside;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const bool is_hidden = entry.path().filename().string().starts_with('.');
      if (entry.is_directory() && !is_hidden) inside.push_back(entry.path());
    }
    std::sort(inside.begin(), inside.end());
    if (is_run(folder) || inside.empty()) inside = {folder};
    paths.insert(paths.end(), inside.begin(), inside.end());
  }
  std::vector<RunSummary> runs;
  std::map<std::string, int> named;
  for (const fs::path& path : paths) {
    runs.push_back(read_run(path));
    ++named[runs.back().name];
  }
  for (RunSummary& run : runs) {
    if (named[run.name] > 1) run.name = run.folder.string();
  }
  return runs;
}

}  // namespace carousel
