#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/training/checkpoint.h"
#include "tools/run_config.h"

namespace carousel {

/// Sets the threads and opens the device that a config asks for. ConfigError if this build or this
/// machine has none, or if it does not know the precision.
Device open_device(const MachineConfig& machine);

/// What a run calls its device: "cpu", "cuda (emulated)", "NVIDIA H200".
std::string device_text(const Device& device);

/// The type in which products read their inputs.
DType compute_type(Precision precision);

/// What a checkpoint's weights mean: read by whoever loads them, here or in PyTorch.
Metadata run_metadata(const RunConfig& config, const Vocabularies& vocabularies);

/// Gives a model the weights of a file. FormatError unless the file's tensors are exactly the
/// model's, by name and shape, and its vocabularies, where it records any, are those of the data.
void load_weights(const SafetensorsFile& file, const Vocabularies& vocabularies, Model& model);

/// A model as a checkpoint left it, ready to run.
class TrainedModel {
 public:
  /// `path` is a run's folder or one of its checkpoints. FormatError if it is not of ours.
  TrainedModel(const std::filesystem::path& path, const CommonArguments& common);

  const RunConfig& config() const { return *config_; }
  const Vocabularies& vocabularies() const { return vocabularies_; }
  const Vocabulary& vocabulary() const { return vocabularies_["token"]; }
  const Device& device() const { return device_; }
  Model& model() { return *model_; }
  std::int64_t step() const { return step_; }

 private:
  std::unique_ptr<RunConfig> config_;
  Vocabularies vocabularies_;
  Device device_;
  std::unique_ptr<Model> model_;
  std::int64_t step_ = 0;
};

/// The tokens a text begins with when nothing else is said: <bos>, <eos>, a newline, or the first
/// token there is.
std::int32_t first_token(const Vocabulary& vocabulary);

}  // namespace carousel
