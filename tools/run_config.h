#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/config/options.h"
#include "engine/data/data_kinds.h"
#include "engine/training/optimizer.h"
#include "engine/training/schedule.h"
#include "engine/training/trainer.h"
#include "models/registry.h"
#include "tools/commands.h"

namespace carousel {

enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda };
enum class Precision : std::uint8_t { f32, tf32, bf16 };

/// Section [run]: where and how, which changes speed and rounding and not what is computed.
struct MachineConfig {
  DeviceChoice device = DeviceChoice::automatic;
  Precision precision = Precision::f32;
  std::int64_t threads = 0;
  bool graph = true;
};

/// Everything a config file says, with defaults for the rest.
class RunConfig {
 public:
  /// The file, then the command line's changes over it.
  RunConfig(const std::filesystem::path& file, const CommonArguments& common);
  /// A config as text, e.g. from a checkpoint; `name` stands for it in errors.
  RunConfig(const std::string& text, const std::string& name, const CommonArguments& common);

  /// The defaults of a kind of model.
  explicit RunConfig(const std::string& model_kind);

  std::string kind;
  std::filesystem::path weights;  ///< model.weights: a file to begin with; may be empty
  std::unique_ptr<ModelConfig> model;
  std::string data_kind = "text";
  std::unique_ptr<DataConfig> data;
  TrainConfig train;
  OptimizerConfig optimizer;
  Schedule schedule;
  MachineConfig machine;

  /// Every option as it ran: what the run's folder and its checkpoints keep.
  std::string toml() const { return options_.toml(); }
  /// Whether "section.key" may change when the run is resumed.
  bool may_change(const std::string& name) const { return options_.may_change(name); }
  /// Every option with its value and meaning, for people to read.
  std::string help() const { return options_.help(); }

 private:
  void apply(Config config, const CommonArguments& common);
  void describe();
  Options options_;
};

}  // namespace carousel
