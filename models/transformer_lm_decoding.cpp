// How transformer_lm writes: it reads tokens on from a cache of keys and values.
#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "kernels/combine/combine.h"
#include "kernels/key_value_cache/key_value_cache.h"
#include "kernels/position_embedding/position_embedding.h"
#include "models/text_windows.h"
#include "models/transformer_lm.h"

namespace carousel {
namespace {

/// The hidden units [B, E] after each row's last step, of [T, B, E].
Tensor last_steps(Tape& tape, const Tensor& hidden, const Tensor& lengths) {
  const std::int64_t T = hidden.shape()[0], B = hidden.shape()[1], E = hidden.shape()[2];
  if (!lengths) return hidden.slice(T - 1, 1).reshaped({B, E});
  std::vector<std::int32_t> row(static_cast<std::size_t>(B));
  copy_to_host(lengths, row.data());  // waits for the device, once in a prompt
  for (std::size_t b = 0; b < row.size(); ++b) {
    row[b] = (row[b] - 1) * static_cast<std::int32_t>(B) + static_cast<std::int32_t>(b);
  }
  return gathered_rows(tape, hidden, row, {B, E});
}

}  // namespace

Var TransformerLm::cached_attention(Tape& tape, Var qkv, std::size_t index, const Past& past) {
  const Shape& shape = qkv.shape();
  const std::int64_t steps = shape[0], batch = shape[1], E = config_.embed;
  const std::int64_t keys = config_.key_heads() * config_.head_width();
  const Tensor k = past.state->at(fmt::format("cache_k_l{}", index)).value,
               v = past.state->at(fmt::format("cache_v_l{}", index)).value,
               used = tape.tensor({batch}, DType::i32),
               q = tape.tensor({steps, batch, E}, qkv.dtype());
  visit_float(qkv.dtype(), [&]<class T>(std::type_identity<T>) {
    if constexpr (!std::is_same_v<T, double>) {
      run(tape.device(), StoreKeysAndValues<T>{.x = qkv.value().view<T, 3>(),
                                               .first_k = E,
                                               .first_v = E + keys,
                                               .position = past.position.view<std::int64_t, 1>(),
                                               .length = past.lengths.view<std::int32_t, 1>(),
                                               .k = k.mutable_view<T, 3>(),
                                               .v = v.mutable_view<T, 3>(),
                                               .used = used.mutable_view<std::int32_t, 1>()});
      run(tape.device(),
          CopyColumns<T>{
              .from = qkv.value().view<T, 2>(), .to = {q.mutable_view<T, 2>()}, .width = E});
    }
  });
  AttentionOptions options{.heads = config_.heads, .kv_heads = config_.key_heads()};
  if (steps > 1) {
    options.causal = true;
    options.window = steps > config_.context ? config_.context : 0;
    options.lengths = past.lengths;
    return self_attention(qkv, options);
  }
  // The order of keys means nothing to a sum: the ring serves as it is, and all of it is visible.
  options.lengths = used;
  return attention(tape.constant(q), tape.constant(k), tape.constant(v), options);
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

Tensor TransformerLm::last_units(Pass& pass, const Tensor& token, const Past& past) {
  Tape& tape = pass.tape();
  const std::int64_t T = token.shape()[0], B = token.shape()[1];
  const auto move_on = [&](const Tensor& lengths, std::int64_t steps) {
    run(device_, AdvancePositions{.before = past.position.view<std::int64_t, 1>(),
                                  .length = lengths.view<std::int32_t, 1>(),
                                  .steps = steps,
                                  .after = past.position.mutable_view<std::int64_t, 1>()});
  };
  std::vector<std::int64_t> before(static_cast<std::size_t>(B), 0);
  if (T > 1) copy_to_host(past.position, before.data());  // waits for the device, once in a prompt
  if (std::all_of(before.begin(), before.end(), [](std::int64_t n) { return n == 0; }) || T == 1) {
    const Var h = hidden_units(pass, token, past);
    move_on(past.lengths, T);
    return last_steps(tape, h.value(), T == 1 ? Tensor{} : past.lengths);
  }
  std::vector<std::int32_t> lengths(before.size(), static_cast<std::int32_t>(T));
  if (past.lengths) copy_to_host(past.lengths, lengths.data());
  const Tensor all = tape.tensor({T, B, config_.embed}, parameters_.compute_type());
  for (std::int64_t t = 0; t < T; ++t) {
    std::vector<std::int32_t> reads;
    for (const std::int32_t length : lengths) reads.push_back(t < length ? 1 : 0);
    const Tensor one = tape.tensor({B}, DType::i32);
    copy_from_host(one, reads.data());
    const Past step{.state = past.state, .position = past.position, .lengths = one};
    copy(hidden_units(pass, token.slice(t, 1), step).value(), all.slice(t, 1));
    move_on(one, 1);
  }
  return last_steps(tape, all, past.lengths);
}

Tensor TransformerLm::logits(Pass& pass, const Field& token, const State& state) {
  Tape& tape = pass.tape();
  const Tensor& before = state.at("position").value;
  const Tensor after = tape.tensor(before.shape(), DType::i64);
  copy(before, after);
  pass.carry(after, before);
  const Past past{.state = &state, .position = after, .lengths = token.lengths};
  return output_->logits(pass, tape.constant(last_units(pass, token.values, past)));
}

}  // namespace carousel
