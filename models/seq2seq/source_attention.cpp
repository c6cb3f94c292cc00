#include "models/seq2seq/source_attention.h"

#include <string>
#include <vector>

namespace carousel {

SourceAttention::SourceAttention(const Seq2SeqConfig& config, std::int64_t units,
                                 Parameters& parameters)
    : config_(config), parameters_(&parameters) {
  if (!config.attends()) return;
  const std::int64_t H = config.width();
  const Initializer matrix = config.encoder.matrix(1);
  const auto declare = [&](const char* name, const Shape& shape) {
    return parameters.declare(std::string("attention.") + name + ".weight", shape, matrix);
  };
  if (config.adds()) {
    query_ = declare("query", {H, H});
    key_ = declare("key", {H, units});
    score_ = declare("score", {1, H});
  } else {
    if (units != H) memory_ = declare("memory", {H, units});
    if (config.attention == Seq2SeqConfig::Attention::general) score_ = declare("score", {H, H});
  }
  output_ = declare("output", {H, config.context_width() + H});
}

/// x with a weight, or x itself without one.
Var SourceAttention::product(Tape& tape, const char* name, Var x, std::size_t weight) const {
  if (weight == kNone) return x;
  const Tape::Layer layer(tape, std::string("attention, ") + name);
  return matmul(x, parameters_->on(tape, weight), true);
}

SourceAttention::Memory SourceAttention::memory(Tape& tape, Var steps,
                                                const Tensor& lengths) const {
  if (!config_.attends()) return {};
  return {.values = product(tape, "memory", steps, memory_),
          .keys = config_.adds() ? product(tape, "key", steps, key_) : Var{},
          .lengths = lengths};
}

Var SourceAttention::context(Tape& tape, Var query, const Memory& memory) const {
  if (config_.adds()) {
    const Var q = product(tape, "query", query, query_);
    const Tape::Layer layer(tape, "attention, context");
    const AdditiveAttention look = additive_attention(
        q, memory.keys, memory.values, parameters_->on(tape, score_), memory.lengths);
    if (memory.seen != nullptr) {
      const Shape& shape = look.weights.shape();
      memory.seen->push_back(look.weights.reshaped({shape[0], 1, shape[1], shape[2]}));
    }
    return look.y;
  }
  const Var q = product(tape, "score", query, score_);
  const AttentionOptions options{
      .heads = config_.attention_heads, .scale = 1, .lengths = memory.lengths};
  if (memory.seen != nullptr) {
    memory.seen->push_back(attention_weights(q, memory.values, options));
  }
  const Tape::Layer layer(tape, "attention, context");
  return attention(q, memory.values, memory.values, options);
}

Var SourceAttention::combined(Tape& tape, Var context, Var h) const {
  const Tape::Layer layer(tape, "attention, output");
  const Var both = concatenate(context, h);
  const Var product = matmul(both, parameters_->on(tape, output_), true);
  const Tape::Layer function(tape, "attention, function");
  return activation(product, Activation::tanh);
}

Var SourceAttention::attended(Tape& tape, Var h, const Memory& memory) const {
  return config_.attends() ? combined(tape, context(tape, h, memory), h) : h;
}

}  // namespace carousel
