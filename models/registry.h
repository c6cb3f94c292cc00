#pragma once

#include <memory>
#include <span>
#include <string>

#include "engine/config/options.h"
#include "engine/model/model.h"

namespace carousel {

/// The options of one kind of model, section [model] of a config.
class ModelConfig {
 public:
  virtual ~ModelConfig() = default;
  virtual void describe(OptionSection& section) = 0;
  virtual std::unique_ptr<Model> make(std::int64_t vocabulary, const Device& device, DType compute,
                                      std::uint64_t seed) const = 0;
};

struct ModelEntry {
  const char* kind;         ///< model.kind in a config
  const char* description;  ///< one line
  std::unique_ptr<ModelConfig> (*config)();
};

/// Every model there is, sorted by kind.
std::span<const ModelEntry> model_registry();

}  // namespace carousel
