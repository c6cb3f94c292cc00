#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/config/options.h"
#include "engine/data/samplers.h"
#include "engine/files/safetensors.h"
#include "engine/model/metric.h"

namespace carousel {

/// The options of one kind of model, section [model] of a config.
class ModelConfig {
 public:
  virtual ~ModelConfig() = default;
  virtual void describe(OptionSection& section) = 0;
  virtual std::unique_ptr<Model> make(const Vocabularies& vocabularies, const Device& device,
                                      DType compute, const Beginning& beginning) const = 0;
};

/// A kind of model: what it is called, which data it reads, how it is judged, and what it can do.
struct ModelEntry {
  const char* kind;         ///< model.kind in a config
  const char* description;  ///< one line
  std::unique_ptr<ModelConfig> (*config)();
  std::span<const char* const> columns;  ///< of the data that it reads
  Sampler sampler;
  Metrics (*metrics)(const Vocabularies&);
  bool decodes = false;     ///< has a decoder: writes text
  bool predicts = false;    ///< has a predictor: labels what it reads
  bool translates = false;  ///< has a translator: writes a text for each that it reads
  bool tracks = false;      ///< has a state tracker: tells which states a line came from
  bool embeds = false;      ///< has an embedder: gives hidden states of what it reads
  /// Tells how probable each token is: in evaluation, also of packed_batches(), the first loss of its
  /// objective has the nats of every target.
  bool scores = false;
  bool fits =
      false;  ///< has an estimator: is fitted to the corpus, without an optimiser, on the CPU
  /// Reads weights that files of others hold in another form, too; null: as read_weights().
  void (*read_weights)(const SafetensorsFile& file, std::span<const NamedTensor> tensors) = nullptr;
  const char* formerly = nullptr;  ///< a name of the kind in older configs
};

/// The row of a kind, by its name or its former one. ConfigError with the nearest name there is.
const ModelEntry& find_model(std::span<const ModelEntry> models, const std::string& kind);

}  // namespace carousel
