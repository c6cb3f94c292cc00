#include "models/seq2seq/source_attention.h"

#include <vector>

namespace carousel {

SourceAttention::SourceAttention(const Seq2SeqConfig& config, std::int64_t units,
                                 Parameters& parameters)
    : config_(config), parameters_(&parameters) {
  if (!config.attends()) return;
  const std::int64_t H = config.width();
  const Initializer matrix = config.encoder.matrix(1);
  if (units != H) memory_ = parameters.declare("attention.memory.weight", {H, units}, matrix);
  if (config.attention == Seq2SeqConfig::Attention::general) {
    score_ = parameters.declare("attention.score.weight", {H, H}, matrix);
  }
  output_ = parameters.declare("attention.output.weight", {H, 2 * H}, matrix);
}

SourceAttention::Memory SourceAttention::memory(Tape& tape, Var steps,
                                                const Tensor& lengths) const {
  if (!config_.attends()) return {};
  const Tape::Layer layer(tape, "attention, memory");
  if (memory_ != kNone) steps = matmul(steps, parameters_->on(tape, memory_), true);
  return {.values = steps, .lengths = lengths};
}

Var SourceAttention::query(Tape& tape, Var h) const {
  if (score_ == kNone) return h;
  const Tape::Layer layer(tape, "attention, score");
  return matmul(h, parameters_->on(tape, score_), true);
}

AttentionOptions SourceAttention::options(const Memory& memory) const {
  return {.heads = config_.attention_heads, .scale = 1, .lengths = memory.lengths};
}

Var SourceAttention::attended(Tape& tape, Var h, const Memory& memory) const {
  if (!config_.attends()) return h;
  const Var q = query(tape, h);
  if (memory.seen != nullptr) {
    memory.seen->push_back(attention_weights(q, memory.values, options(memory)));
  }
  const Var context = [&] {
    const Tape::Layer layer(tape, "attention, context");
    return attention(q, memory.values, memory.values, options(memory));
  }();
  const Tape::Layer layer(tape, "attention, output");
  const Var both = concatenate(context, h);
  const Var product = matmul(both, parameters_->on(tape, output_), true);
  const Tape::Layer function(tape, "attention, function");
  return activation(product, Activation::tanh);
}

Tensor SourceAttention::weights(Tape& tape, Var h, const Memory& memory) const {
  return attention_weights(query(tape, h), memory.values, options(memory));
}

}  // namespace carousel
