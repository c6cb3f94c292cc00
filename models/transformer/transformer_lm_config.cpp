#include "models/transformer/transformer_lm_config.h"

#include <fmt/format.h>

#include "kernels/common/check.h"
#include "models/transformer/transformer_parts.h"

namespace carousel {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 20;

}  // namespace

void TransformerLmConfig::describe(OptionSection& section) {
  const RealRange probability{.least = 0, .most = 1, .below_most = true};
  section.add("context", context, "positions that are seen at once: the longest window",
              {1, std::int64_t{1} << 24});
  section.add("layers", layers, "of attention and feed-forward", {1, 1 << 16});
  section.add("heads", heads, "of attention", {1, kMost});
  section.add("kv_heads", kv_heads, "of keys and values, which heads share; 0: as many as heads",
              {0, kMost});
  section.add("embed", embed, "width of the model", {1, kMost});
  section.add("hidden", hidden, "width of a feed-forward layer; 0: four times embed", {0, kMost});
  section.add("norm", norm, "how rows are normalized",
              {{"layer", Norm::layer}, {"rms", Norm::rms}});
  section.add("positions", positions, "how a token's position is told",
              {{"learnt", Positions::learnt},
               {"sinusoidal", Positions::sinusoidal},
               {"rotary", Positions::rotary}});
  const auto is_rotary = [this] { return positions == Positions::rotary; };
  const std::string not_rotary = "model.positions is not rotary";
  section
      .add("rope_base", rope_base, "rotary: how slowly angles grow",
           {.least = 1, .above_least = true})
      .when(is_rotary, not_rotary);
  section
      .add("rope_pairs", rope_pairs, "rotary: which columns of a head are turned together",
           {{"halves", RopePairs::halves}, {"neighbours", RopePairs::neighbours}})
      .when(is_rotary, not_rotary);
  section.add("feed_forward", feed_forward, "the function of the feed-forward layers",
              {{"gelu", FeedForward::gelu},
               {"gelu_tanh", FeedForward::gelu_tanh},
               {"relu", FeedForward::relu},
               {"swiglu", FeedForward::swiglu}});
  section.add("bias", bias, "products and layer normalization add a bias");
  section.add("dropout", dropout,
              "probability, of the embedding, of attention's weights and of what each block adds",
              probability);
  section.add("tie_weights", tie_weights, "use the embedding as output matrix");
  section.add("label_smoothing", label_smoothing, "share of the target spread evenly", probability);
  section
      .add("stride", stride,
           "evaluation of longer texts: tokens between the begins of windows; 0: context",
           {0, 1 << 24})
      .may_change();
  output.describe(section);
}

void TransformerLmConfig::check() const {
  check_heads(embed, heads);
  if (heads % key_heads() != 0) {
    throw ConfigError(fmt::format("model.kv_heads is {}, expected a divisor of model.heads, {}",
                                  kv_heads, heads));
  }
  if (positions == Positions::rotary && head_width() % 2 != 0) {
    throw ConfigError(
        fmt::format("model.embed / model.heads is {}, expected an even number for rotary positions",
                    head_width()));
  }
  if (stride > context) {
    throw ConfigError(
        fmt::format("model.stride is {}, expected at most model.context, {}", stride, context));
  }
}

}  // namespace carousel
