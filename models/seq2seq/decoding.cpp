// How seq2seq writes: a token of each row at a time, from states and the sources' memory.
#include "kernels/common/check.h"
#include "models/alignment.h"
#include "models/seq2seq/seq2seq.h"

namespace carousel {
namespace {

/// The same numbers outside the tape, for K rows of each row of a batch.
Tensor kept(const Tensor& values, const Device& device, std::int64_t beam) {
  const std::int64_t rows = values.shape()[0];
  const Tensor result(device, {beam * rows, values.shape()[1]}, values.dtype());
  for (std::int64_t k = 0; k < beam; ++k) copy(values, result.slice(k * rows, rows));
  return result;
}

Tensor kept(const Tensor& values, const Device& device) {
  const Tensor result(device, values.shape(), values.dtype());
  copy(values, result);
  return result;
}

}  // namespace

State Seq2Seq::encode(Pass& pass, const Field& source, const Room& room) {
  const Given given = read(pass, source);
  const std::int64_t rows = source.values.shape()[1];
  State state = decoder_.initial_state(device_, room.beam * rows);
  for (std::size_t i = 0; i < given.initial.size(); ++i) {
    if (!given.initial[i].present()) continue;  // it begins at 0
    state.tensors[i].value = kept(given.initial[i].value(), device_, room.beam);
  }
  if (!config_.attends()) return state;
  state.tensors.push_back(
      {.name = "memory", .value = kept(given.memory.values.value(), device_), .batch_axis = -1});
  if (config_.adds()) {
    state.tensors.push_back(
        {.name = "keys", .value = kept(given.memory.keys.value(), device_), .batch_axis = -1});
  }
  if (source.lengths) {
    state.tensors.push_back(
        {.name = "lengths", .value = kept(source.lengths, device_), .batch_axis = -1});
  }
  if (config_.feeds()) {
    const Tensor nothing(device_, {room.beam * rows, config_.width()}, parameters_.compute_type());
    zero(nothing);
    state.tensors.push_back({.name = "attended", .value = nothing});
  }
  return state;
}

Translator::Step Seq2Seq::step(Pass& pass, const Tensor& token, const State& state, bool aligned) {
  Tape& tape = pass.tape();
  const std::int64_t rows = token.shape()[1], H = config_.width();
  std::vector<Tensor> seen;
  SourceAttention::Memory memory{.seen = aligned ? &seen : nullptr};
  for (const StateTensor& tensor : state.tensors) {
    if (tensor.name == "memory") memory.values = tape.constant(tensor.value);
    if (tensor.name == "keys") memory.keys = tape.constant(tensor.value);
    if (tensor.name == "lengths") memory.lengths = tensor.value;
  }
  // The rows of a source are queries of one row of the memory.
  const auto context = [&](const Tensor& queries) {
    const std::int64_t sources = memory.values.shape()[1];
    const Var c = attention_.context(
        tape, tape.constant(queries.reshaped({rows / sources, sources, H})), memory);
    return tape.constant(c.value().reshaped({1, rows, config_.context_width()}));
  };
  Var x = decoder_.read(pass, embedding_, token), fed{};  // x: [1, K·B, E]
  if (config_.looks_first()) fed = context(state.tensors[top_state()].value);
  if (config_.feeds()) fed = tape.constant(state.at("attended").value.reshaped({1, rows, H}));
  if (fed.present()) x = with_fed(tape, x, fed);
  Var y = decoder_.run(pass, x, {.state = &state}, Encoder::Output::steps).output;
  if (config_.attends()) {
    y = attention_.combined(tape, config_.looks_first() ? fed : context(y.value()), y);
  }
  if (config_.feeds()) pass.carry(y.value().reshaped({rows, H}), state.at("attended").value);
  return {.logits = output_.logits(pass, y).reshaped({rows, config_.vocabulary}),
          .alignment = seen.empty() ? Tensor{} : mean_of_heads(tape, seen.front())};
}

std::vector<AttentionWeights> Seq2Seq::attention_weights(Pass& pass, const Batch& batch) {
  if (batch.rows != 1) throw ShapeError("attention_weights: expected a batch of one row");
  std::vector<Tensor> seen;  // of all steps at once, or of each
  Given given = read(pass, batch.at("source"));
  given.memory.seen = &seen;
  decoded(pass, batch.at("token"), given);
  return {{.name = "attention",
           .queries = "target",
           .keys = "source",
           .weights = seen.size() == 1 ? seen.front() : joined_weights(pass.tape(), seen)}};
}

}  // namespace carousel
