#pragma once

#include <filesystem>
#include <string>

#include "engine/generation/generator.h"
#include "engine/run/trained_model.h"
#include "engine/run/training.h"
#include "models/registry.h"

/// The library in one header: what the driver does, for other programs. tests/consumer/ has a
/// program that trains and one that asks a trained model for probabilities.
namespace carousel {

/// A config of any model that Carousel has; overrides as `--set section.key=value` has them.
/// ConfigError, with file and line.
inline RunConfig read_config(const std::filesystem::path& file, const Overrides& overrides = {}) {
  return {file, model_registry(), overrides};
}

/// The model, vocabularies and config of a run, which the driver or train() has made. `checkpoint`
/// is best, last or step-N; empty: the best there is.
inline TrainedModel load_run(const std::filesystem::path& run, const Overrides& overrides = {},
                             const std::string& checkpoint = {}) {
  return {run, model_registry(), overrides, checkpoint};
}

}  // namespace carousel
