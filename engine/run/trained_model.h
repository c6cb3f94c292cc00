#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/run/packed_lines.h"
#include "engine/run/run_config.h"
#include "engine/text/line_encoder.h"
#include "engine/training/checkpoint.h"
#include "engine/training/evaluation.h"

namespace carousel {

/// What a checkpoint's weights mean, for any program that loads them, PyTorch's included.
Metadata run_metadata(const RunConfig& config, const Vocabularies& vocabularies);

/// An entry of a file's metadata. FormatError if there is none: the file is not Carousel's.
const std::string& metadata_text(const SafetensorsFile& file, const char* key);

/// How probable a model takes the tokens of a line to be.
struct LineScore {
  /// Nats, of each token given all before it. Nothing for a line's first token, which has none
  /// before it, and up to the token data.answer_after.
  std::vector<std::optional<double>> tokens;

  std::int64_t counted() const;    ///< tokens that have a log-probability
  double log_probability() const;  ///< of all of these: the sum
  double perplexity() const;       ///< NaN if there are none
};

/// Which hidden states of a line are wanted: that after its last step, the mean of all, or each.
enum class LineEmbedding : std::uint8_t { last, mean, all };

/// Hidden states of lines.
struct LineEmbeddings {
  std::vector<std::int32_t> steps;  ///< of each line: tokens that were read
  std::vector<float> rows;  ///< [lines, units]; of LineEmbedding::all [sum of the steps, units]
};

/// A model as a checkpoint left it, ready to run.
class TrainedModel {
 public:
  /// `path` is a run's folder, one of its checkpoints, or a checkpoint's file of weights, which has
  /// everything; `checkpoint` chooses among a run's: find_weights(). FormatError for a file that is
  /// not Carousel's.
  TrainedModel(const std::filesystem::path& path, RunConfig::Models models,
               const Overrides& overrides = {}, const std::string& checkpoint = {});

  const RunConfig& config() const { return config_; }
  const Vocabularies& vocabularies() const { return vocabularies_; }
  const Device& device() const { return device_; }
  Model& model() const { return *model_; }
  Embedder& embedder() const;  ///< ConfigError for a model that does not embed
  std::int64_t step() const { return step_; }
  /// The name of the checkpoint: "best", "last", "step-20"; or of the folder or file it was copied
  /// to.
  const std::string& checkpoint() const { return checkpoint_; }

  /// Judges the model on the validation part of a corpus. A stream is cut into `rows` rows, each of
  /// which begins without a state: one row gives the exact loss. With `accuracy` a language model's
  /// token_accuracy is among the scores, for one more product of its output layer.
  Evaluation evaluate(const Corpus& corpus, std::int64_t rows = 1, bool accuracy = false);
  /// The probabilities of the classes, for each example of the validation part, in its order.
  /// ConfigError for a model that has no predictor.
  std::vector<std::vector<double>> predict(const Corpus& corpus);
  /// Scores lines of ids (LineEncoder), each from the state in which a sequence begins. They may be
  /// of any length, also 0. A line's score does not depend on the lines beside it. ConfigError for a
  /// model that does not score.
  std::vector<LineScore> score(std::span<const LineIds> lines);
  /// How embed() wants lines encoded: closed, as examples, for a model that reads them whole and
  /// writes none; open for others, as prompts.
  LineEncoder::End line_end() const;
  /// The hidden states of lines, as score() reads them. Of two directions, the last state is that in
  /// which each has read the whole line. A line without tokens has zeros, and no step.
  LineEmbeddings embed(std::span<const LineIds> lines, LineEmbedding which);

 private:
  /// Passes forward over lines that one shape of batches suits.
  void forward_lines(const PackedLines& lines, const TakeBatch& take);
  TrainedModel(const SavedWeights& saved, RunConfig::Models models, const Overrides& overrides);
  RunConfig config_;
  Vocabularies vocabularies_;
  Device device_;
  std::unique_ptr<Model> model_;
  std::int64_t step_;
  std::string checkpoint_;
};

}  // namespace carousel
