#include "models/transformer/transformer_lm.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "kernels/common/check.h"
#include "models/text_windows.h"

namespace carousel {
namespace {

using Kind = Initializer::Kind;
constexpr double kDeviation = 0.02;

/// Places of dropout: the embedding, then three in each layer.
std::uint64_t place_of(std::size_t layer, std::uint64_t which) { return 1 + 3 * layer + which; }

std::string attention_name(std::size_t layer) { return fmt::format("layer {}, attention", layer); }
std::string feed_forward_name(std::size_t layer) {
  return fmt::format("layer {}, feed-forward", layer);
}

}  // namespace

TransformerLm::TransformerLm(const TransformerLmConfig& config, const Device& device, DType compute,
                             const Beginning& beginning)
    : config_(config), device_(device) {
  config.check();
  const Initializer matrix{.kind = Kind::normal, .scale = kDeviation};
  embedding_ =
      parameters_.declare("transformer.wte.weight", {config.vocabulary, config.embed}, matrix);
  if (config.positions == TransformerLmConfig::Positions::learnt) {
    positions_ =
        parameters_.declare("transformer.wpe.weight", {config.context, config.embed}, matrix);
  }
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    layers_.push_back(declare_layer(layer));
  }
  last_norm_ = parts_.declare_norm("transformer.ln_f.");
  config_.output.name = "lm_head";
  config_.output.bias = false;
  output_.emplace(config_.output, OutputLayer::Sizes{config.vocabulary, config.embed},
                  OutputLayer::Beginnings{matrix, {}}, parameters_,
                  config.tie_weights ? &embedding_ : nullptr);
  output_->expect_smoothing(config.label_smoothing);
  parameters_.materialize(device, compute, beginning);
  output_->materialize();
}

TransformerLm::Layer TransformerLm::declare_layer(std::int64_t layer) {
  const std::string name = fmt::format("transformer.h.{}.", layer);
  const std::int64_t E = config_.embed, hidden = config_.hidden_width();
  const std::int64_t keys = config_.key_heads() * config_.head_width();
  const bool gated = config_.feed_forward == TransformerLmConfig::FeedForward::swiglu;
  // What 2·layers blocks add has the variance that one alone would have.
  const double residual = kDeviation / std::sqrt(2.0 * static_cast<double>(config_.layers));
  const Initializer matrix{.kind = Kind::normal, .scale = kDeviation},
      added{.kind = Kind::normal, .scale = residual};
  return {
      .before_attention = parts_.declare_norm(name + "ln_1."),
      .qkv = parts_.declare_product(name + "attn.c_attn.", {E + 2 * keys, E}, matrix),
      .attended = parts_.declare_product(name + "attn.c_proj.", {E, E}, added),
      .before_feed_forward = parts_.declare_norm(name + "ln_2."),
      .wide = parts_.declare_product(name + "mlp.c_fc.", {gated ? 2 * hidden : hidden, E}, matrix),
      .narrow = parts_.declare_product(name + "mlp.c_proj.", {E, hidden}, added)};
}

Var TransformerLm::embedded(Pass& pass, const Tensor& token, const Past& past) {
  using Positions = TransformerLmConfig::Positions;
  Tape& tape = pass.tape();
  const Tape::Layer layer(tape, "embedding");
  Var x = embedding(parameters_.on(tape, embedding_), token);
  // Reports add up the tolerances of layers of different names: each op with one of its own has one.
  const auto placed = [&](Var table, double scale) {
    const Tape::Layer part(tape, "positions");
    return position_embedding(x, table, past.position, static_cast<float>(scale));
  };
  if (config_.positions == Positions::learnt) {
    x = placed(parameters_.on(tape, positions_), 1);
  } else if (config_.positions == Positions::sinusoidal) {
    x = placed(Var{}, std::sqrt(static_cast<double>(config_.embed)));
  }
  return parts_.drop(pass, x, 0);
}

Var TransformerLm::attended(Pass& pass, Var x, std::size_t index, const Past& past) {
  Tape& tape = pass.tape();
  const Tape::Layer layer(tape, attention_name(index));
  const Layer& own = layers_[index];
  Var qkv = parts_.product(tape, x, own.qkv);
  if (config_.positions == TransformerLmConfig::Positions::rotary) {
    const Tape::Layer part(tape, tape.layer_name() + ", positions");
    qkv = rope(qkv, {.heads = config_.heads + config_.key_heads(),
                     .head_width = config_.head_width(),
                     .offset = past.position,
                     .base = config_.rope_base,
                     .pairs = config_.rope_pairs});
  }
  AttentionOptions options{.heads = config_.heads, .kv_heads = config_.key_heads(), .causal = true};
  if (past.seen != nullptr) {
    past.seen->push_back({.name = fmt::format("layer {}", index),
                          .queries = "token",
                          .keys = "token",
                          .weights = self_attention_weights(qkv, options)});
  }
  if (pass.training() && config_.dropout > 0) {
    options.drop_probability = static_cast<float>(config_.dropout);
    options.random = pass.random(place_of(index, 0));
  }
  const Var y = [&] {
    const Tape::Layer part(tape, tape.layer_name() + ", heads");
    return past.state == nullptr ? self_attention(qkv, options)
                                 : cached_attention(qkv, index, past, options);
  }();
  return parts_.drop(pass, parts_.product(tape, y, own.attended), place_of(index, 1));
}

Var TransformerLm::fed_forward(Pass& pass, Var x, std::size_t index) {
  using FeedForward = TransformerLmConfig::FeedForward;
  Tape& tape = pass.tape();
  const Tape::Layer layer(tape, feed_forward_name(index));
  const Layer& own = layers_[index];
  const Var wide = parts_.product(tape, x, own.wide);
  const Var active = [&] {
    const Tape::Layer part(tape, tape.layer_name() + ", function");
    switch (config_.feed_forward) {
      case FeedForward::gelu_tanh:
        return activation(wide, Activation::gelu_tanh);
      case FeedForward::relu:
        return activation(wide, Activation::relu);
      case FeedForward::swiglu:
        return gated_activation(wide, Activation::silu);
      case FeedForward::gelu:
        break;
    }
    return activation(wide, Activation::gelu);
  }();
  return parts_.drop(pass, parts_.product(tape, active, own.narrow), place_of(index, 2));
}

Var TransformerLm::hidden_units(Pass& pass, const Tensor& token, const Past& past) {
  Tape& tape = pass.tape();
  Var x = embedded(pass, token, past);
  // Each sum is normalized for what comes next.
  const auto summed = [&](Var more, const std::string& next, const Norm& norm) {
    const Tape::Layer layer(tape, next);
    const SumAndNorm both = parts_.summed(tape, x, more, norm);
    x = both.sum;
    return both.normalized;
  };
  Var y = [&] {
    const Tape::Layer layer(tape, attention_name(0));
    return parts_.normalized(tape, x, layers_[0].before_attention);
  }();
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const bool last = i + 1 == layers_.size();
    y = summed(attended(pass, y, i, past), feed_forward_name(i), layers_[i].before_feed_forward);
    y = summed(fed_forward(pass, y, i), last ? "last norm" : attention_name(i + 1),
               last ? last_norm_ : layers_[i + 1].before_attention);
  }
  return y;
}

Var TransformerLm::evaluated_units(Pass& pass, const Batch& batch) {
  const Tensor& token = batch["token"];
  const std::int64_t T = token.shape()[0], B = token.shape()[1];
  if (!batch.reset && T <= config_.context) return hidden_units(pass, token, {});
  // These wait for the device.
  std::vector<std::int32_t> reset(static_cast<std::size_t>(batch.reset ? T * B : 0));
  if (batch.reset) copy_to_host(batch.reset, reset.data());
  const Field* const of_lines = batch.find("place");
  std::vector<std::int64_t> place(static_cast<std::size_t>(of_lines != nullptr ? T * B : 0));
  if (of_lines != nullptr) copy_to_host(of_lines->values, place.data());
  const TextWindows windows = text_windows({.steps = T, .rows = B, .reset = reset, .place = place},
                                           config_.context, config_.window_stride());
  Tape& tape = pass.tape();
  const Tensor units = tape.tensor({windows.places, config_.embed}, parameters_.compute_type());
  Tape reading(group_memory_, /*recording=*/false);
  std::int64_t first = 0;
  for (const TextWindows::Group& group : windows.groups) {
    reading.clear();
    group_memory_.reset();
    Pass each(reading);
    const Tensor read = gathered_rows(reading, token, group.from, {group.steps, group.count});
    const Tensor own = hidden_units(each, read, {}).value();
    copy(own.reshaped({group.places(), config_.embed}), units.slice(first, group.places()));
    first += group.places();
  }
  return tape.constant(gathered_rows(tape, units, windows.to, {T, B, config_.embed}));
}

Objective TransformerLm::objective(Pass& pass, const Batch& batch, const State& /*state*/) {
  const std::int64_t steps = batch["token"].shape()[0];
  if (pass.training() && steps > config_.context) {
    throw ConfigError(
        fmt::format("a sequence has {} tokens, expected at most model.context, {}; train.window "
                    "sets the length "
                    "of those of a stream",
                    steps, config_.context));
  }
  const Var h =
      pass.training() ? hidden_units(pass, batch["token"], {}) : evaluated_units(pass, batch);
  return {.terms = {{"loss", output_->loss(pass, h, batch["target"], config_.label_smoothing)}},
          .choices = pass.wants_choices() ? output_->likeliest(pass, h.value()) : Tensor{}};
}

std::vector<AttentionWeights> TransformerLm::attention_weights(Pass& pass, const Batch& batch) {
  const Tensor& token = batch["token"];
  if (token.shape()[0] > config_.context) {
    throw ConfigError(
        fmt::format("attention: the text has {} tokens, expected at most model.context, {}",
                    token.shape()[0], config_.context));
  }
  std::vector<AttentionWeights> seen;
  hidden_units(pass, token, {.seen = &seen});
  return seen;
}

Tensor TransformerLm::hidden(Pass& pass, const Batch& batch, const State& /*state*/) {
  return evaluated_units(pass, batch).value();
}

}  // namespace carousel
