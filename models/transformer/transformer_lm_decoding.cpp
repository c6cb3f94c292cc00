// How transformer_lm writes: it reads tokens on from a cache of keys and values.
#include <fmt/format.h>

#include <cstddef>
#include <vector>

#include "kernels/position_embedding/position_embedding.h"
#include "models/text_windows.h"
#include "models/transformer/transformer_lm.h"

namespace carousel {
namespace {

/// The hidden units [B, E] after each row's last step, of [T, B, E].
Tensor last_steps(Tape& tape, const Tensor& hidden, const Tensor& lengths) {
  const std::int64_t T = hidden.shape()[0], B = hidden.shape()[1], E = hidden.shape()[2];
  if (!lengths || T == 1) return hidden.slice(T - 1, 1).reshaped({B, E});
  std::vector<std::int32_t> row(static_cast<std::size_t>(B));
  copy_to_host(lengths, row.data());  // waits for the device, once in a prompt
  for (std::size_t b = 0; b < row.size(); ++b) {
    row[b] = (row[b] - 1) * static_cast<std::int32_t>(B) + static_cast<std::int32_t>(b);
  }
  return gathered_rows(tape, hidden, row, {B, E});
}

}  // namespace

Var TransformerLm::cached_attention(Var qkv, std::size_t index, const Past& past,
                                    AttentionOptions options) const {
  options.lengths = past.lengths;
  return cached_self_attention(qkv,
                               {.k = past.state->at(fmt::format("cache_k_l{}", index)).value,
                                .v = past.state->at(fmt::format("cache_v_l{}", index)).value,
                                .position = past.position},
                               options);
}

State TransformerLm::decoding_state(std::int64_t batch) const {
  State state;
  const std::int64_t width = config_.key_heads() * config_.head_width();
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    for (const char* const which : {"k", "v"}) {
      state.tensors.push_back(
          {.name = fmt::format("cache_{}_l{}", which, layer),
           .value = Tensor(device_, {config_.context, batch, width}, parameters_.compute_type()),
           .batch_axis = 1});
    }
  }
  state.tensors.push_back({.name = "position", .value = Tensor(device_, {batch}, DType::i64)});
  state.reset();
  return state;
}

std::int64_t TransformerLm::longest() const {
  return config_.positions == TransformerLmConfig::Positions::learnt ? config_.context : 0;
}

Tensor TransformerLm::logits(Pass& pass, const Field& token, const State& state) {
  Tape& tape = pass.tape();
  const Tensor& before = state.at("position").value;
  const Past past{.state = &state, .position = before, .lengths = token.lengths};
  const Var h = hidden_units(pass, token.values, past);
  const Tensor after = tape.tensor(before.shape(), DType::i64);
  run(device_, AdvancePositions{.before = before.view<std::int64_t, 1>(),
                                .length = token.lengths.view<std::int32_t, 1>(),
                                .steps = token.values.shape()[0],
                                .after = after.mutable_view<std::int64_t, 1>()});
  pass.carry(after, before);
  return output_->logits(pass, tape.constant(last_steps(tape, h.value(), token.lengths)));
}

}  // namespace carousel
