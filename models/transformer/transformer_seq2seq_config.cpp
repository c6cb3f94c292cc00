#include "models/transformer/transformer_seq2seq_config.h"

#include "kernels/common/check.h"
#include "models/transformer/transformer_parts.h"

namespace carousel {

void TransformerSeq2seqConfig::describe(OptionSection& section) {
  constexpr std::int64_t kMost = std::int64_t{1} << 20, kMostLayers = 1 << 16;
  const RealRange probability{.least = 0, .most = 1, .below_most = true};
  section.add("layers", layers, "of the encoder", {1, kMostLayers});
  section.add("decoder_layers", decoder_layers, "of the decoder; 0: as many", {0, kMostLayers});
  section.add("heads", heads, "of attention", {1, kMost});
  section.add("embed", embed, "width of the model", {1, kMost});
  section.add("hidden", hidden, "width of a feed-forward layer; 0: four times embed", {0, kMost});
  section.add("norm_place", norm_place,
              "where rows are normalized: after each block's sum, or what a block reads",
              {{"post", NormPlace::post}, {"pre", NormPlace::pre}});
  section.add("dropout", dropout, "probability, of the embeddings and of what each block adds",
              probability);
  section.add("attention_dropout", attention_dropout, "probability, of attention's weights",
              probability);
  section.add("share_embeddings", share_embeddings,
              "one embedding for source and target; with data.shared_vocabulary");
  section.add("tie_weights", tie_weights, "use the target's embedding as output matrix");
  section.add("label_smoothing", label_smoothing, "share of the target spread evenly", probability);
  output.describe(section);
}

void TransformerSeq2seqConfig::check() const {
  check_heads(embed, heads);
  if (share_embeddings && !same_vocabulary) {
    throw ConfigError(
        "model.share_embeddings is true, and source and target have vocabularies of their own; "
        "expected data.shared_vocabulary = true");
  }
}

}  // namespace carousel
