#include "engine/run/trained_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "engine/model/estimator.h"
#include "engine/model/sampling.h"
#include "engine/training/training_run.h"
#include "kernels/common/check.h"
#include "kernels/recurrent_sequence/cell.h"

namespace carousel {
namespace {

/// A checkpoint's weights, which are held against the config before memory is taken.
Beginning weights_of(const SavedWeights& saved, const RunConfig& config) {
  Beginning beginning(config.seed());
  beginning.expect = [&saved](const Parameters& parameters) { saved.expect_weights(parameters); };
  return beginning;
}

/// A checkpoint's name, by its weights' file.
std::string name_of(const std::filesystem::path& file) {
  const std::filesystem::path path = std::filesystem::absolute(file).lexically_normal();
  return (path.filename() == kModelFile ? path.parent_path() : path).filename().string();
}

/// "lstm: i, f, g, o; gru: r, z, n": of every cell with more than one gate.
std::string gate_orders() {
  std::vector<std::string> orders;
  for (const CellKind cell : cell_kinds()) {
    const std::span gates(cell->gate_names.begin(), static_cast<std::size_t>(cell->gates));
    if (cell->gates > 1)
      orders.push_back(fmt::format("{}: {}", cell->name, fmt::join(gates, ", ")));
  }
  return fmt::format("{}", fmt::join(orders, "; "));
}

}  // namespace

Metadata run_metadata(const RunConfig& config, const Vocabularies& vocabularies) {
  Metadata metadata{
      {"format", "pt"},  // what PyTorch's own files say, so that its loaders take these
      {"carousel.version", "1"},
      {"carousel.config", config.toml()},
      {"carousel.gate_order", gate_orders()},
      {"carousel.gru", "reset after the recurrent product"},
      {"carousel.biases", "bias_ih and bias_hh are both added"}};
  vocabularies.write(metadata);
  return metadata;
}

const std::string& metadata_text(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  if (found != file.metadata().end()) return found->second;
  throw FormatError(
      fmt::format("{}: no '{}' among its metadata, expected one of Carousel's own checkpoints",
                  file.path().string(), key));
}

TrainedModel::TrainedModel(const std::filesystem::path& path, RunConfig::Models models,
                           const Overrides& overrides, const std::string& checkpoint)
    : TrainedModel(SavedWeights(find_weights(path, checkpoint)), models, overrides) {}

TrainedModel::TrainedModel(const SavedWeights& saved, RunConfig::Models models,
                           const Overrides& overrides)
    : config_(metadata_text(saved.model(), "carousel.config"), saved.model().path().string(),
              models, overrides),
      vocabularies_(Vocabularies::read(saved.metadata(), saved.model().path().string())),
      device_(open_device(config_.machine)),
      model_(config_.model->make(vocabularies_, device_, compute_type(config_.machine.precision),
                                 weights_of(saved, config_))),
      step_(saved.step()),
      checkpoint_(name_of(saved.model().path())) {
  if (Estimator* const estimator = model_->estimator()) {
    estimator->load(saved.model());
    return;
  }
  Parameters& parameters = model_->parameters();
  saved.restore_weights(named_weights(parameters));
  parameters.refresh_working();
}

Evaluation TrainedModel::evaluate(const Corpus& corpus, std::int64_t rows, bool accuracy) {
  SamplerOptions options = config_.sampler_options(device_, /*training=*/false);
  options.rows = rows;
  options.windows = model_->reading_windows();
  const auto batches = config_.entry->sampler(corpus, corpus.validation, options);
  Arena arena(device_);
  return carousel::evaluate(*model_, *batches, arena, [&] {
    Metrics metrics = config_.entry->metrics(vocabularies_);
    if (accuracy) metrics.push_back(std::make_unique<TokenAccuracy>());
    return metrics;
  });
}

std::vector<std::vector<double>> TrainedModel::predict(const Corpus& corpus) {
  Predictor* const predictor = model_->predictor();
  if (predictor == nullptr) {
    throw ConfigError(fmt::format("predict: model.kind = {} has no predictor", config_.kind));
  }
  const auto batches = config_.entry->sampler(corpus, corpus.validation,
                                              config_.sampler_options(device_, /*training=*/false));
  Arena arena(device_);
  std::vector<std::vector<double>> result(static_cast<std::size_t>(batches->counted_per_epoch()));
  const auto take = [&](Pass& pass, const Batch& batch, const State&) {
    const Tensor logits = predictor->predict(pass, batch);
    const std::vector<float> values = host_floats(logits);  // waits for the device
    const auto classes = static_cast<std::size_t>(logits.shape().back());
    std::vector<std::int32_t> numbers(values.size() / classes);
    copy_to_host(batch["number"], numbers.data());
    for (std::size_t row = 0; row < numbers.size(); ++row) {
      if (numbers[row] < 0) continue;  // it fills up the batch
      result[static_cast<std::size_t>(numbers[row])] =
          softmax(std::span(values).subspan(row * classes, classes));
    }
  };
  forward_epoch(*model_, *batches, arena, take);
  return result;
}

}  // namespace carousel
