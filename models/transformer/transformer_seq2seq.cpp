#include "models/transformer/transformer_seq2seq.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/common/check.h"

namespace carousel {
namespace {

using Kind = Initializer::Kind;

}  // namespace

TransformerSeq2seq::TransformerSeq2seq(const TransformerSeq2seqConfig& config, const Device& device,
                                       DType compute, const Beginning& beginning)
    : config_(config), device_(device) {
  config.check();
  const Initializer rows{.kind = Kind::normal,
                         .scale = 1 / std::sqrt(static_cast<double>(config.embed))};
  if (config.share_embeddings) {
    source_embedding_ = target_embedding_ =
        parameters_.declare("embedding.weight", {config.vocabulary, config.embed}, rows);
  } else {
    source_embedding_ =
        parameters_.declare("source_embedding.weight", {config.sources, config.embed}, rows);
    target_embedding_ =
        parameters_.declare("target_embedding.weight", {config.vocabulary, config.embed}, rows);
  }
  const bool pre = config.norm_place == TransformerSeq2seqConfig::NormPlace::pre;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const SelfAttention self = declare_self("encoder", layer);
    encoder_.push_back({self, declare_feed_forward("encoder", layer, "norm2.")});
  }
  if (pre) encoder_norm_ = parts_.declare_norm("encoder.norm.");
  for (std::int64_t layer = 0; layer < config.decoders(); ++layer) {
    const SelfAttention self = declare_self("decoder", layer);
    cross_.push_back(declare_cross(layer));
    decoder_.push_back({self, declare_feed_forward("decoder", layer, "norm3.")});
  }
  if (pre) decoder_norm_ = parts_.declare_norm("decoder.norm.");
  config_.output.bias = false;
  output_.emplace(config_.output, OutputLayer::Sizes{config.vocabulary, config.embed},
                  OutputLayer::Beginnings{{.kind = Kind::xavier, .scale = 1}, {}}, parameters_,
                  config.tie_weights ? &target_embedding_ : nullptr);
  output_->expect_smoothing(config.label_smoothing);
  parameters_.materialize(device, compute, beginning);
  output_->materialize();
}

TransformerSeq2seq::Product TransformerSeq2seq::declare_product(const std::string& name,
                                                                std::int64_t rows,
                                                                std::int64_t columns, int blocks) {
  return parts_.declare_product(name, {rows, columns},
                                {.kind = Kind::xavier, .scale = 1, .blocks = blocks});
}

TransformerSeq2seq::Block TransformerSeq2seq::declare_block(const std::string& stack,
                                                            std::int64_t layer, const char* what,
                                                            const char* norm) {
  const std::uint64_t place = places_;
  places_ += 2;
  return {.name = fmt::format("{} layer {}, {}", stack, layer, what),
          .norm = parts_.declare_norm(fmt::format("{}.layers.{}.{}", stack, layer, norm)),
          .place = place};
}

TransformerSeq2seq::SelfAttention TransformerSeq2seq::declare_self(const std::string& stack,
                                                                   std::int64_t layer) {
  const std::string name = fmt::format("{}.layers.{}.self_attn.", stack, layer);
  const std::int64_t E = config_.embed;
  return {.in = declare_product(name + "in_proj_", 3 * E, E, /*blocks=*/3),
          .out = declare_product(name + "out_proj.", E, E),
          .block = declare_block(stack, layer, "self-attention", "norm1.")};
}

TransformerSeq2seq::CrossAttention TransformerSeq2seq::declare_cross(std::int64_t layer) {
  const std::string name = fmt::format("decoder.layers.{}.multihead_attn.", layer);
  const std::int64_t E = config_.embed;
  return {.q = declare_product(name + "q_proj.", E, E),
          .k = parts_.declare_matrix(name + "k_proj.", {E, E}, {.kind = Kind::xavier, .scale = 1}),
          .v = declare_product(name + "v_proj.", E, E),
          .out = declare_product(name + "out_proj.", E, E),
          .block = declare_block("decoder", layer, "attention", "norm2.")};
}

TransformerSeq2seq::FeedForward TransformerSeq2seq::declare_feed_forward(const std::string& stack,
                                                                         std::int64_t layer,
                                                                         const char* norm) {
  const std::string name = fmt::format("{}.layers.{}.", stack, layer);
  const std::int64_t E = config_.embed, hidden = config_.hidden_width();
  return {.wide = declare_product(name + "linear1.", hidden, E),
          .narrow = declare_product(name + "linear2.", E, hidden),
          .block = declare_block(stack, layer, "feed-forward", norm)};
}

Var TransformerSeq2seq::block(Pass& pass, Var x, const Block& block,
                              const std::function<Var(Var)>& f) const {
  Tape& tape = pass.tape();
  const bool pre = config_.norm_place == TransformerSeq2seqConfig::NormPlace::pre;
  const Var added = [&] {
    const Tape::Layer layer(tape, block.name);
    return parts_.drop(pass, f(pre ? parts_.normalized(tape, x, block.norm) : x), block.place);
  }();
  // Reports add up the tolerances of layers of different names: each op with one of its own has one.
  const Var sum = [&] {
    const Tape::Layer layer(tape, block.name + ", sum");
    return add(x, added);
  }();
  if (pre) return sum;
  const Tape::Layer layer(tape, block.name + ", norm");
  return parts_.normalized(tape, sum, block.norm);
}

AttentionOptions TransformerSeq2seq::attention_options(Pass& pass, const Block& block) const {
  AttentionOptions options{.heads = config_.heads};
  if (pass.training() && config_.attention_dropout > 0) {
    options.drop_probability = static_cast<float>(config_.attention_dropout);
    options.random = pass.random(block.place + 1);
  }
  return options;
}

Var TransformerSeq2seq::self_attended(Pass& pass, Var x, const SelfAttention& own,
                                      AttentionOptions options, const KeyValueCache* cache) const {
  Tape& tape = pass.tape();
  return block(pass, x, own.block, [&](Var rows) {
    const Var qkv = parts_.product(tape, rows, own.in);
    if (seen_ != nullptr) {
      const char* const field = options.causal ? "token" : "source";
      seen_->push_back({.name = own.block.name,
                        .queries = field,
                        .keys = field,
                        .weights = self_attention_weights(qkv, options)});
    }
    const Var y = [&] {
      const Tape::Layer part(tape, tape.layer_name() + ", heads");
      return cache == nullptr ? self_attention(qkv, options)
                              : cached_self_attention(qkv, *cache, options);
    }();
    const Tape::Layer part(tape, tape.layer_name() + ", out");
    return parts_.product(tape, y, own.out);
  });
}

Var TransformerSeq2seq::cross_attended(Pass& pass, Var x, std::size_t layer, const Memory& memory,
                                       Writing& writing) const {
  Tape& tape = pass.tape();
  const CrossAttention& own = cross_[layer];
  AttentionOptions options = attention_options(pass, own.block);
  options.lengths = memory.lengths;
  return block(pass, x, own.block, [&](Var rows) {
    Var q = parts_.product(tape, rows, own.q);
    const Shape shape = q.shape();
    if (writing.state != nullptr) {  // the K rows of a source are K queries of its keys
      const std::int64_t B = memory.k[layer].shape()[1];
      q = tape.constant(q.value().reshaped({shape[1] / B, B, shape[2]}));
    }
    Var y = [&] {
      const Tape::Layer part(tape, tape.layer_name() + ", heads");
      return attention(q, memory.k[layer], memory.v[layer], options);
    }();
    if (seen_ != nullptr) {
      seen_->push_back({.name = own.block.name,
                        .queries = "target",
                        .keys = "source",
                        .weights = carousel::attention_weights(q, memory.k[layer], options)});
    }
    if (writing.aligned && layer + 1 == decoder_.size()) {
      writing.alignment = carousel::attention_weights(q, memory.k[layer], options);
    }
    if (writing.state != nullptr) y = tape.constant(y.value().reshaped(shape));
    const Tape::Layer part(tape, tape.layer_name() + ", out");
    return parts_.product(tape, y, own.out);
  });
}

Var TransformerSeq2seq::fed_forward(Pass& pass, Var x, const FeedForward& own) const {
  Tape& tape = pass.tape();
  return block(pass, x, own.block, [&](Var rows) {
    const Var wide = parts_.product(tape, rows, own.wide);
    const Var active = [&] {
      const Tape::Layer part(tape, tape.layer_name() + ", function");
      return activation(wide, Activation::relu);
    }();
    const Tape::Layer part(tape, tape.layer_name() + ", out");
    return parts_.product(tape, active, own.narrow);
  });
}

Var TransformerSeq2seq::embedded(Pass& pass, const Tensor& token, bool of_source,
                                 const Tensor& position) {
  Tape& tape = pass.tape();
  const Tape::Layer layer(tape, of_source ? "source embedding" : "target embedding");
  const Var x =
      embedding(parameters_.on(tape, of_source ? source_embedding_ : target_embedding_), token);
  const Var placed = [&] {
    const Tape::Layer part(tape, tape.layer_name() + ", positions");
    const double scale = std::sqrt(static_cast<double>(config_.embed));
    return position_embedding(x, Var{}, position, static_cast<float>(scale));
  }();
  return parts_.drop(pass, placed, of_source ? 0 : 1);
}

TransformerSeq2seq::Memory TransformerSeq2seq::memory(Pass& pass, const Field& source) {
  Tape& tape = pass.tape();
  Var x = embedded(pass, source.values, /*of_source=*/true, {});
  for (const Layer& layer : encoder_) {
    AttentionOptions options = attention_options(pass, layer.self.block);
    options.lengths = source.lengths;
    x = self_attended(pass, x, layer.self, options, nullptr);
    x = fed_forward(pass, x, layer.feed_forward);
  }
  if (config_.norm_place == TransformerSeq2seqConfig::NormPlace::pre) {
    const Tape::Layer layer(tape, "encoder norm");
    x = parts_.normalized(tape, x, encoder_norm_);
  }
  Memory result{.k = {}, .v = {}, .lengths = source.lengths};
  for (const CrossAttention& layer : cross_) {
    const Tape::Layer keys(tape, layer.block.name + ", keys");
    result.k.push_back(parts_.product(tape, x, layer.k));
    const Tape::Layer values(tape, layer.block.name + ", values");
    result.v.push_back(parts_.product(tape, x, layer.v));
  }
  return result;
}

Var TransformerSeq2seq::decoded(Pass& pass, const Tensor& token, const Memory& memory,
                                Writing& writing) {
  Tape& tape = pass.tape();
  Var x = embedded(pass, token, /*of_source=*/false, writing.position);
  for (std::size_t i = 0; i < decoder_.size(); ++i) {
    AttentionOptions options = attention_options(pass, decoder_[i].self.block);
    options.causal = true;
    std::optional<KeyValueCache> cache;
    if (writing.state != nullptr) {
      cache = {.k = writing.state->at(fmt::format("cache_k_l{}", i)).value,
               .v = writing.state->at(fmt::format("cache_v_l{}", i)).value,
               .position = writing.position};
    }
    x = self_attended(pass, x, decoder_[i].self, options, cache ? &*cache : nullptr);
    x = cross_attended(pass, x, i, memory, writing);
    x = fed_forward(pass, x, decoder_[i].feed_forward);
  }
  if (config_.norm_place == TransformerSeq2seqConfig::NormPlace::post) return x;
  const Tape::Layer layer(tape, "decoder norm");
  return parts_.normalized(tape, x, decoder_norm_);
}

std::vector<AttentionWeights> TransformerSeq2seq::attention_weights(Pass& pass,
                                                                    const Batch& batch) {
  std::vector<AttentionWeights> seen;
  seen_ = &seen;
  Writing none;
  decoded(pass, batch["token"], memory(pass, batch.at("source")), none);
  seen_ = nullptr;
  return seen;
}

Objective TransformerSeq2seq::objective(Pass& pass, const Batch& batch, const State& /*state*/) {
  const Memory memory = this->memory(pass, batch.at("source"));
  Writing none;
  const Var h = decoded(pass, batch["token"], memory, none);
  return {.terms = {{"loss", output_->loss(pass, h, batch["target"], config_.label_smoothing)}},
          .choices = pass.wants_choices() ? output_->likeliest(pass, h.value()) : Tensor{}};
}

}  // namespace carousel
