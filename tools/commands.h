#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace carousel {

/// What every command takes.
struct CommonArguments {
  std::vector<std::string> set;          ///< "section.key=value", over the config
  std::optional<std::string> device;     ///< auto | cpu | cuda; short for --set run.device=…
  std::optional<std::string> precision;  ///< f32 | tf32 | bf16
  std::optional<int> threads;
  /// Where device and precision were given, for errors, if not by --device and --precision.
  std::string device_typed, precision_typed;
  bool json = false;
  bool explain = false;  ///< of train, eval and generate
};

struct TrainArguments {
  std::string config, out;
  bool resume = false;
};

struct EvalArguments {
  std::string run, data;
};

struct CompareArguments {
  std::string path;                              ///< a config, or a run's folder
  std::vector<std::string> devices, precisions;  ///< of the two sides; one: of both; none: default
  std::vector<std::string> modes;                ///< of the two sides: eager and graph, or none
  std::int64_t steps = 20;
};

struct GenerateArguments {
  std::string run, prompt;
  std::int64_t tokens = 200;
  double temperature = 1, top_p = 1;
  std::int64_t top_k = 0;
  bool greedy = false;
  std::uint64_t seed = 1;
};

/// Each command returns the process's exit status and throws Error for what went wrong. Standard
/// output gets what was asked for, standard error all talk.
int train_command(const TrainArguments& arguments, const CommonArguments& common);
int eval_command(const EvalArguments& arguments, const CommonArguments& common);
int compare_command(const CompareArguments& arguments, const CommonArguments& common);
int generate_command(const GenerateArguments& arguments, const CommonArguments& common);
int models_command(const CommonArguments& common);

}  // namespace carousel
