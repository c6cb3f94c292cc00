#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/run/run_config.h"
#include "engine/training/checkpoint.h"

namespace carousel {

/// What a checkpoint's weights mean, for any program that loads them, PyTorch's included.
Metadata run_metadata(const RunConfig& config, const Vocabularies& vocabularies);

/// An entry of a file's metadata. FormatError if there is none: the file is not Carousel's.
const std::string& metadata_text(const SafetensorsFile& file, const char* key);

/// Gives a model the weights of a file. FormatError unless the file's tensors are exactly the
/// model's, by name and shape, and its vocabularies, where it records them, are those of the data.
void load_weights(const SafetensorsFile& file, const Vocabularies& vocabularies, Model& model);

/// A model as a checkpoint left it, ready to run.
class TrainedModel {
 public:
  /// `path` is a run's folder or one of its checkpoints. FormatError for a file that is not
  /// Carousel's.
  TrainedModel(const std::filesystem::path& path, RunConfig::Models models,
               const Overrides& overrides = {});

  const RunConfig& config() const { return config_; }
  const Vocabularies& vocabularies() const { return vocabularies_; }
  const Device& device() const { return device_; }
  Model& model() { return *model_; }
  std::int64_t step() const { return step_; }

  /// Judges the model on the validation part of a corpus. A stream is cut into `rows` rows, each of
  /// which begins without a state: one row gives the exact loss.
  Evaluation evaluate(const Corpus& corpus, std::int64_t rows = 1);
  /// The probabilities of the classes, for each example of the validation part, in its order.
  /// ConfigError for a model that has no predictor.
  std::vector<std::vector<double>> predict(const Corpus& corpus);

 private:
  TrainedModel(const SavedCheckpoint& saved, RunConfig::Models models, const Overrides& overrides);
  RunConfig config_;
  Vocabularies vocabularies_;
  Device device_;
  std::unique_ptr<Model> model_;
  std::int64_t step_;
};

/// The tokens a text begins with when nothing else is said: <bos>, <eos>, a newline, or the first
/// token there is.
std::int32_t first_token(const Vocabulary& vocabulary);

}  // namespace carousel
