#pragma once

#include <cstdint>

#include "engine/config/options.h"
#include "models/output_layer.h"

namespace carousel {

struct TransformerSeq2seqConfig {
  enum class NormPlace : std::uint8_t { post, pre };

  std::int64_t sources = 0, vocabulary = 0;  ///< of source tokens, and V; from the data
  bool same_vocabulary = false;              ///< of both sides; from the data
  std::int64_t layers = 6;                   ///< of the encoder
  std::int64_t decoder_layers = 0;           ///< 0: as many
  std::int64_t heads = 8;                    ///< A
  std::int64_t embed = 512;                  ///< E
  std::int64_t hidden = 0;                   ///< of a feed-forward layer; 0: 4·E
  NormPlace norm_place = NormPlace::post;
  double dropout = 0.1;          ///< of both embeddings, and of what each block adds
  double attention_dropout = 0;  ///< of attention's weights
  bool share_embeddings = false;
  bool tie_weights = true;
  double label_smoothing = 0.1;
  OutputConfig output{};

  void describe(OptionSection& section);
  /// ConfigError for sizes that do not fit.
  void check() const;
  std::int64_t hidden_width() const { return hidden > 0 ? hidden : 4 * embed; }
  std::int64_t decoders() const { return decoder_layers > 0 ? decoder_layers : layers; }
};

}  // namespace carousel
