#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/files/safetensors.h"
#include "engine/run/run_config.h"
#include "engine/vectors/vector_file.h"

namespace carousel {

/// The vocabularies of a run, of a file of weights that records them, or that of a vocabulary's own
/// file as the one of tokens.
Vocabularies read_vocabularies(const std::filesystem::path& path);

/// Gives a model the weights of a file. FormatError unless the file's tensors are exactly the
/// model's, by name and shape or in a form that its entry reads, and its vocabularies, where it
/// records them, are those of the data. Returns whether it records that of the tokens: if not, their
/// order is unchecked.
bool load_weights(const SafetensorsFile& file, const Vocabularies& vocabularies,
                  const ModelEntry& entry, Model& model);

/// Gives the model the embeddings of those of its tokens that the file has too, by their text, and
/// leaves the others. Returns how many. FormatError for vectors of another width, ConfigError for a
/// model without an embedding.
std::int64_t take_embeddings(const VectorFile& file, const Vocabulary& vocabulary, Model& model);

/// What a new run takes over from others: data.vocabulary, model.weights, model.embedding_from.
class StartingPoint {
 public:
  /// Opens the files, before the texts are read: that may take long. A run that goes on from a
  /// checkpoint takes its vocabularies, where they were not counted, and nothing else.
  explicit StartingPoint(const RunConfig& config, const SavedCheckpoint* resumed = nullptr);

  Corpus open_corpus(const std::string& cache) const;
  /// Returns what the user should know of it.
  std::vector<std::string> give(const Vocabularies& vocabularies, Model& model) const;

 private:
  const RunConfig& config_;
  Vocabularies vocabularies_;
  std::optional<SafetensorsFile> weights_;
  std::unique_ptr<VectorFile> embedding_;
};

}  // namespace carousel
