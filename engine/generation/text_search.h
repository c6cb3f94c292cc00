#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/generation/beam.h"
#include "engine/model/translator.h"
#include "engine/text/vocabulary.h"

namespace carousel {

/// A decoder as a translator whose source is what the text begins with. It is read once but for its last
/// token, which each of the K rows reads and writes on from.
class PromptedDecoder final : public Translator {
 public:
  PromptedDecoder(Decoder& decoder, const Device& device) : decoder_(decoder), device_(device) {}

  /// ShapeError unless there is one source.
  State encode(Pass& pass, const Field& source, const Room& room) override;
  Step step(Pass& pass, const Tensor& token, const State& state, bool aligned) override;
  bool attends() const override { return false; }

 private:
  Decoder& decoder_;
  Device device_;
};

/// A text that a search found.
struct FoundText {
  std::string text;  ///< behind the prompt, without the newline that ends a line
  Hypothesis hypothesis;
};

/// Searches for the texts of at most `tokens` tokens that a language model most probably writes behind
/// a prompt (encode_prompt()): the best N, best first. A line ends at its <eos>; a stream of byte_bpe
/// at kEndOfText, where there is such a token, and any other at `tokens`. <unk> and <bos> are not
/// written. Of the options, a longest length is that of `tokens`.
///
/// Errors   ConfigError for a model without a decoder, for options out of range, and for a prompt that
///          leaves no room for so many tokens where the model's positions end. Error if the model's
///          logits are not numbers.
class TextSearch {
 public:
  TextSearch(Model& model, const Vocabulary& vocabulary, std::int64_t tokens, BeamOptions options);
  std::vector<FoundText> search(std::vector<std::int32_t> prompt) const;

 private:
  std::int32_t end() const;
  Decoder& decoder_;
  Device device_;
  const Vocabulary& vocabulary_;
  BeamOptions options_;
};

}  // namespace carousel
