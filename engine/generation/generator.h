#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/model/sampling.h"
#include "engine/tape/step_graphs.h"

namespace carousel {

/// The decoder of a model that writes text; ConfigError for any other, which begins with `purpose`.
Decoder& decoder_of(Model& model, const char* purpose);

/// Writes on, one token a row at a time. It carries the model's state, so that a token costs one
/// step however long the text has become. On CUDA a step is one graph.
///
/// Where a decoder's positions end, a row whose text has reached longest() reads the later half of
/// that again, as the begin of a text, and goes on from there; the other rows of the batch then read
/// theirs again too, which changes nothing but rounding. A longer prompt is read from its later half
/// of longest() on.
class Generator {
 public:
  /// ConfigError for a model that has no decoder. Without `graph` a step is queued kernel by kernel,
  /// which gives the same tokens.
  Generator(Model& model, const SamplingConfig& config, std::int64_t rows = 1, bool graph = true);

  /// Begins anew with a prompt for each row, read in one pass. Each has at least one token.
  void begin(std::span<const std::vector<std::int32_t>> prompts);
  void begin(const std::vector<std::int32_t>& prompt) { begin(std::span(&prompt, 1)); }
  /// Reads on after what was read and written: as many prompts, with the state kept.
  void go_on(std::span<const std::vector<std::int32_t>> prompts);
  /// The next token of every row, to be called after begin(). Error if the model's logits are not
  /// numbers.
  const std::vector<std::int32_t>& next();
  /// Of every token to be the next one of each row, as the model has them: sampling options change
  /// nothing here. To be called after begin(); waits for the device.
  std::vector<std::vector<double>> probabilities() const;

  const StepGraphs& graphs() const { return graphs_; }
  /// Why a step could not be a graph, or nothing.
  const std::string& refusal() const { return refusal_; }

 private:
  /// Reads tokens on; the logits of what follows.
  Tensor read(const Field& token);
  void read(std::span<const std::vector<std::int32_t>> texts);
  /// Adds tokens to what the rows have read, shortened to what a decoder takes; whether it had to be.
  bool remember(std::span<const std::vector<std::int32_t>> texts);
  void begin_again();

  Decoder& decoder_;
  SamplingConfig config_;
  std::int64_t rows_;
  Device device_;
  Arena arena_;
  Tape tape_;
  State state_;
  Tensor token_;   ///< [1, B]: chosen last
  Tensor draw_;    ///< [1]: how many times was chosen, for the random numbers
  Tensor logits_;  ///< [B, V] in the arena, until the next step
  std::int64_t drawn_ = 0;
  std::int64_t longest_;  ///< of the decoder
  std::vector<std::vector<std::int32_t>>
      read_;  ///< if that is not 0: what the state has of each row
  std::string refusal_;
  StepGraphs graphs_;  ///< after the arena, whose memory they use
  std::vector<std::int32_t> chosen_;
};

}  // namespace carousel
