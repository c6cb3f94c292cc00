#pragma once

#include <cstdint>

#include "models/encoder.h"
#include "models/output_layer.h"

namespace carousel {

struct Seq2SeqConfig {
  enum class Attention : std::uint8_t { none, dot, general };

  std::int64_t source_vocabulary = 0, vocabulary = 0;  ///< V, from the data
  bool same_vocabulary = false;                        ///< both are one, from the data
  std::int64_t embed = 128;                            ///< E
  EncoderConfig encoder{};  ///< of both stacks, but that the decoder reads forward alone
  Attention attention = Attention::dot;
  std::int64_t attention_heads = 1;
  bool input_feeding = false;     ///< each step of the decoder reads h̃ of the step before
  bool share_embeddings = false;  ///< source and target tokens have one matrix
  bool tie_weights = false;       ///< the output matrix is the decoder's embedding
  double label_smoothing = 0;
  OutputConfig output{};

  void describe(OptionSection& section);
  void check() const;  ///< ConfigError for what does not fit together
  bool attends() const { return attention != Attention::none; }
  EncoderConfig source_stack() const;                                   ///< of the encoder
  EncoderConfig target_stack() const;                                   ///< of the decoder
  std::int64_t width() const { return target_stack().output_width(); }  ///< H of the decoder's top
  bool feeds() const { return attends() && input_feeding; }
  std::int64_t input_width() const { return embed + (feeds() ? width() : 0); }  ///< of the decoder
};

}  // namespace carousel
