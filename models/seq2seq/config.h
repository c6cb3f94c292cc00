#pragma once

#include <cstdint>

#include "kernels/scheduled_tokens/scheduled_tokens.h"
#include "models/output_layer.h"
#include "models/recurrent/encoder.h"

namespace carousel {

struct Seq2SeqConfig {
  enum class Attention : std::uint8_t { none, dot, general, additive, concat };

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
  bool scheduled_sampling = false;  ///< in training some tokens that are read are the decoder's own
  TeacherForcing teacher_forcing{.steps = 1000};  ///< how many are not
  OutputConfig output{};

  void describe(OptionSection& section);
  void check() const;  ///< ConfigError for what does not fit together
  bool attends() const { return attention != Attention::none; }
  /// Scores are of a sum of query and key, not of their product.
  bool adds() const { return attention == Attention::additive || attention == Attention::concat; }
  /// A step looks at the source before it is made, with the state of the step before.
  bool looks_first() const { return attention == Attention::additive; }
  EncoderConfig source_stack() const;                                   ///< of the encoder
  EncoderConfig target_stack() const;                                   ///< of the decoder
  std::int64_t width() const { return target_stack().output_width(); }  ///< H of the decoder's top
  std::int64_t context_width() const {  ///< of what the attention gives
    return adds() ? source_stack().output_width() : width();
  }
  bool feeds() const { return attends() && !looks_first() && input_feeding; }
  bool goes_by_steps() const { return feeds() || looks_first(); }
  std::int64_t input_width() const {  ///< of the decoder
    return embed + (looks_first() ? context_width() : feeds() ? width() : 0);
  }
};

}  // namespace carousel
