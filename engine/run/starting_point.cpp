#include "engine/run/starting_point.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "engine/training/training_run.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

bool is_vocabulary(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string begin(Vocabulary::kMagic.size(), '\0');
  file.read(begin.data(), std::ssize(begin));
  return begin == Vocabulary::kMagic;
}

Vocabularies vocabularies_of(const SafetensorsFile& file) {
  return Vocabularies::read(file.metadata(), file.path().string());
}

/// The file itself, or that of a run's best weights.
SafetensorsFile weights_of(const std::filesystem::path& path) {
  return SafetensorsFile(is_directory(path) ? find_weights(path) : path);
}

}  // namespace

Vocabularies read_vocabularies(const std::filesystem::path& path) {
  if (!is_vocabulary(path)) {
    const SafetensorsFile file = weights_of(path);
    Vocabularies vocabularies = vocabularies_of(file);
    if (vocabularies.contains("token")) return vocabularies;
    throw FormatError(fmt::format("{}: no vocabulary among its metadata", file.path().string()));
  }
  Vocabularies vocabularies;
  vocabularies.add("token", Vocabulary::read(path.string()));
  return vocabularies;
}

bool load_weights(const SafetensorsFile& file, const Vocabularies& vocabularies,
                  const ModelEntry& entry, Model& model) {
  // Equal shapes do not make two vocabularies the same: ids follow the counts of a text.
  const Vocabularies own = vocabularies_of(file);
  own.expect_same_tokens(vocabularies, file.path().string());
  Parameters& parameters = model.parameters();
  const std::vector<NamedTensor> tensors = named_weights(parameters);
  if (entry.read_weights != nullptr) {
    entry.read_weights(file, tensors);
  } else {
    read_weights(file, tensors);
  }
  parameters.refresh_working();
  return own.contains("token");
}

std::int64_t take_embeddings(const VectorFile& file, const Vocabulary& vocabulary, Model& model) {
  if (model.embedder() == nullptr) {
    throw ConfigError("model.embedding_from: the model has no embedding");
  }
  const Tensor own = model.embedder()->token_embeddings();  // [V, E]
  const std::int64_t width = own.shape()[1];
  if (file.width() != width) {
    throw FormatError(fmt::format("{}: its vectors have {} numbers, and embedding.weight is {}",
                                  file.path().string(), file.width(), own.shape().text()));
  }
  std::vector<float> rows = host_floats(own);
  std::int64_t found = 0;
  file.read([&](std::string_view word, std::span<const float> vector) {
    const std::int32_t id = vocabulary.id(word);
    if (id < 0) return;
    std::copy(vector.begin(), vector.end(), rows.begin() + id * width);
    ++found;
  });
  copy_from_host(own, rows.data());
  model.parameters().refresh_working();
  return found;
}

StartingPoint::StartingPoint(const RunConfig& config, const SavedCheckpoint* resumed)
    : config_(config) {
  const bool has_weights = resumed == nullptr && !config.entry->fits;
  if (has_weights) {
    expect_there("model.weights", config.weights);
    expect_there("model.embedding_from", config.embedding_from);
  }
  if (resumed == nullptr) expect_there("data.vocabulary", config.data->vocabulary_from);
  const std::filesystem::path& vocabulary = config.data->vocabulary_from;
  if (!vocabulary.empty()) {
    vocabularies_ =
        resumed != nullptr ? vocabularies_of(resumed->model()) : read_vocabularies(vocabulary);
  }
  if (!has_weights) return;
  if (!config.weights.empty()) weights_ = weights_of(config.weights);
  if (!config.embedding_from.empty()) {
    embedding_ = VectorFile::open(find_weights(config.embedding_from));
  }
}

Corpus StartingPoint::open_corpus(const std::string& cache) const {
  return config_.data->open(cache, vocabularies_);
}

std::vector<std::string> StartingPoint::give(const Vocabularies& vocabularies, Model& model) const {
  std::vector<std::string> notices;
  if (weights_ && !load_weights(*weights_, vocabularies, *config_.entry, model)) {
    notices.push_back(fmt::format(
        "warning: {} does not say which tokens it was trained on; whether they are in the order of "
        "data.text's is unchecked",
        weights_->path().string()));
  }
  if (embedding_) {
    const Vocabulary& tokens = vocabularies["token"];
    notices.push_back(fmt::format("{} of {} embeddings are those of {}",
                                  take_embeddings(*embedding_, tokens, model), tokens.size(),
                                  embedding_->path().string()));
  }
  return notices;
}

}  // namespace carousel
