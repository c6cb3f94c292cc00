#pragma once

#include <cstdint>

#include "engine/config/options.h"
#include "kernels/rope/rope.h"
#include "models/output_layer.h"

namespace carousel {

struct TransformerLmConfig {
  enum class Norm : std::uint8_t { layer, rms };
  enum class Positions : std::uint8_t { learnt, sinusoidal, rotary };
  enum class FeedForward : std::uint8_t { gelu, gelu_tanh, relu, swiglu };

  std::int64_t vocabulary = 0;  ///< V, from the data
  std::int64_t context = 256;   ///< C, positions that are seen at once
  std::int64_t layers = 6;
  std::int64_t heads = 6, kv_heads = 0;  ///< A; of keys and values, 0: as many
  std::int64_t embed = 384;              ///< E
  std::int64_t hidden = 0;               ///< of a feed-forward layer; 0: 4·E
  Norm norm = Norm::layer;
  Positions positions = Positions::learnt;
  double rope_base = 10'000;
  RopePairs rope_pairs = RopePairs::halves;
  FeedForward feed_forward = FeedForward::gelu;
  bool bias = true;    ///< of products, and of layer normalization
  double dropout = 0;  ///< of the embedding, of attention's weights, and of what each block adds
  bool tie_weights = true;
  double label_smoothing = 0;
  std::int64_t stride = 0;  ///< of evaluation; 0: C
  OutputConfig output{};

  void describe(OptionSection& section);
  /// ConfigError for sizes that do not fit.
  void check() const;
  std::int64_t window_stride() const { return stride > 0 ? stride : context; }
  std::int64_t head_width() const { return embed / heads; }
  std::int64_t key_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  std::int64_t hidden_width() const { return hidden > 0 ? hidden : 4 * embed; }
};

}  // namespace carousel
