#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/data/data_kinds.h"
#include "engine/model/registry.h"
#include "engine/run/machine.h"
#include "engine/training/optimizer.h"
#include "engine/training/schedule.h"
#include "engine/training/trainer.h"

namespace carousel {

/// What a command line changes in a config.
struct Overrides {
  std::vector<std::string> set{};          ///< "section.key=value"
  std::optional<std::string> device{};     ///< auto | cpu | cuda; short for run.device=…
  std::optional<std::string> precision{};  ///< f32 | tf32 | bf16
  std::optional<int> threads{};
  /// Where device and precision were given, for errors, if not by --device and --precision.
  std::string device_typed{}, precision_typed{};
  bool is_own = false;  ///< the config is the one that the run has written: it has what was typed
};

/// Section [run] as the command line has it: for a command that reads no config.
MachineConfig machine_config(const Overrides& overrides);

/// Everything a config file says, with defaults for the rest. The kinds of models that it may name
/// are given; those of data are data_kinds().
class RunConfig {
 public:
  using Models = std::span<const ModelEntry>;

  /// The file, then the changes over it.
  RunConfig(const std::filesystem::path& file, Models models, const Overrides& overrides = {});
  /// A config as text, e.g. from a checkpoint; `name` stands for it in errors.
  RunConfig(const std::string& text, const std::string& name, Models models,
            const Overrides& overrides = {});
  RunConfig(const RunConfig&) = delete;  // its options refer to its members
  RunConfig& operator=(const RunConfig&) = delete;

  const ModelEntry* entry = nullptr;
  std::string kind, data_kind = "text";
  std::filesystem::path weights, embedding_from;  ///< runs or files to begin with; may be empty
  std::unique_ptr<ModelConfig> model;
  std::unique_ptr<DataConfig> data;
  TrainConfig train;
  OptimizerConfig optimizer;
  Schedule schedule;
  MachineConfig machine;

  std::uint64_t seed() const { return static_cast<std::uint64_t>(train.seed); }
  SamplerOptions sampler_options(const Device& device, bool training) const;

  /// Every option as it ran: what the run's folder and its checkpoints keep.
  std::string toml() const { return options_.toml(); }
  /// What is set and has no effect: Options::without_effect().
  std::vector<std::string> without_effect() const { return options_.without_effect(); }
  /// Passes on the options that all kinds of models and of data have, with their defaults.
  static void visit_common(const std::function<void(const Options&)>& visit);

  /// ConfigError that begins "--resume: " if this config asks for another run than `before`, the
  /// config that `run` was trained with; another learning rate must be typed on the command line, for
  /// it changes what is learnt. Returns what has changed, as "train.steps is 20, was 12".
  std::vector<std::string> expect_resumes(const RunConfig& before, const std::string& run) const;

 private:
  RunConfig() = default;
  void apply(Config config, Models models, const Overrides& overrides);
  void describe();            ///< what is common to all kinds
  void describe_as_fitted();  ///< tells the keys of training to have no effect
  Options options_;
  bool rate_is_typed_ = false;
};

}  // namespace carousel
