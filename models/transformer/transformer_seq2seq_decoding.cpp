// How transformer_seq2seq writes: it reads the source once, and its text on from a cache.
#include <fmt/format.h>

#include <cstddef>
#include <vector>

#include "kernels/position_embedding/position_embedding.h"
#include "models/alignment.h"
#include "models/transformer/transformer_seq2seq.h"

namespace carousel {
namespace {

/// A copy that is not the tape's.
Tensor kept(const Tensor& value) {
  const Tensor result(value.device(), value.shape(), value.dtype());
  copy(value, result);
  return result;
}

}  // namespace

State TransformerSeq2seq::encode(Pass& pass, const Field& source, const Room& room) {
  const std::int64_t S = source.values.shape()[0], B = source.values.shape()[1];
  const Memory memory = this->memory(pass, source);
  Tensor lengths(device_, {B}, DType::i32);
  if (source.lengths) {
    copy(source.lengths, lengths);
  } else {
    const std::vector<std::int32_t> all(static_cast<std::size_t>(B), static_cast<std::int32_t>(S));
    copy_from_host(lengths, all.data());
  }
  const std::int64_t rows = room.beam * B;
  const Tensor position(device_, {rows}, DType::i64);
  State state{{{.name = "source_lengths", .value = lengths, .batch_axis = -1},
               {.name = "position", .value = position}}};
  const Shape cache{room.steps, rows, config_.embed};
  for (std::size_t layer = 0; layer < decoder_.size(); ++layer) {
    const auto add = [&](const char* what, const Tensor& value, int batch_axis, int growth_axis) {
      state.tensors.push_back({.name = fmt::format("{}_l{}", what, layer),
                               .value = value,
                               .batch_axis = batch_axis,
                               .growth_axis = growth_axis,
                               .position = growth_axis < 0 ? Tensor{} : position});
    };
    add("cross_k", kept(memory.k[layer].value()), -1, -1);
    add("cross_v", kept(memory.v[layer].value()), -1, -1);
    for (const char* const which : {"cache_k", "cache_v"}) {
      add(which, Tensor(device_, cache, parameters_.compute_type()), 1, 0);
    }
  }
  zero(position);
  return state;
}

Translator::Step TransformerSeq2seq::step(Pass& pass, const Tensor& token, const State& state,
                                          bool aligned) {
  Tape& tape = pass.tape();
  const std::int64_t rows = token.shape()[1];
  Memory memory{.k = {}, .v = {}, .lengths = state.at("source_lengths").value};
  for (std::size_t layer = 0; layer < decoder_.size(); ++layer) {
    memory.k.push_back(tape.constant(state.at(fmt::format("cross_k_l{}", layer)).value));
    memory.v.push_back(tape.constant(state.at(fmt::format("cross_v_l{}", layer)).value));
  }
  const Tensor& before = state.at("position").value;
  Writing writing{.state = &state, .position = before, .aligned = aligned};
  const Var h = decoded(pass, token, memory, writing);
  const Tensor after = tape.tensor(before.shape(), DType::i64);
  run(device_, AdvancePositions{.before = before.view<std::int64_t, 1>(),
                                .steps = 1,
                                .after = after.mutable_view<std::int64_t, 1>()});
  pass.carry(after, before);
  Step result{.logits =
                  output_->logits(pass, tape.constant(h.value().reshaped({rows, config_.embed})))};
  if (aligned) result.alignment = mean_of_heads(tape, writing.alignment);
  return result;
}

}  // namespace carousel
