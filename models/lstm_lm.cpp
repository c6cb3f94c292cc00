#include "models/lstm_lm.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/common/check.h"

namespace carousel {

LstmLm::LstmLm(const LstmLmConfig& config, const Device& device, DType compute, std::uint64_t seed)
    : config_(config), device_(device) {
  if (config.tie_weights && config.embed != config.hidden) {
    throw ConfigError(
        fmt::format("model.tie_weights needs model.embed == model.hidden; they are {} and {}",
                    config.embed, config.hidden));
  }
  declare();
  parameters_.materialize(device, compute, seed);
}

Initializer LstmLm::matrix(int blocks) const {
  using Kind = Initializer::Kind;
  const double range = config_.init_range > 0 ? config_.init_range
                                              : 1 / std::sqrt(static_cast<double>(config_.hidden));
  if (config_.init == "uniform") return {.kind = Kind::uniform, .scale = range};
  if (config_.init == "xavier") return {.kind = Kind::xavier, .scale = 1, .blocks = blocks};
  if (config_.init == "orthogonal") return {.kind = Kind::orthogonal, .scale = 1, .blocks = blocks};
  throw ConfigError(
      fmt::format("model.init is '{}', expected uniform, xavier or orthogonal", config_.init));
}

void LstmLm::declare() {
  using Kind = Initializer::Kind;
  const std::int64_t H = config_.hidden, V = config_.vocabulary;
  // Biases are vectors, for which only the uniform rule has a meaning.
  const Initializer vector = config_.init == "uniform" ? matrix(1) : Initializer{};
  Initializer forget = vector;
  forget.offset = config_.forget_bias;
  forget.offset_first = H;  // gate order i, f, g, o
  forget.offset_count = H;

  // Tied weights serve as output matrix too, whose scale must suit the softmax.
  const Initializer tokens =
      config_.tie_weights ? matrix(1) : Initializer{.kind = Kind::normal, .scale = 1};
  embedding_ = parameters_.declare("embedding.weight", {V, config_.embed}, tokens);
  for (std::int64_t l = 0; l < config_.layers; ++l) {
    const std::int64_t in = l == 0 ? config_.embed : H;
    const auto name = [&](const char* part) { return fmt::format("lstm.{}_l{}", part, l); };
    layers_.push_back({
        .weight_ih = parameters_.declare(name("weight_ih"), {4 * H, in}, matrix(4)),
        .weight_hh = parameters_.declare(name("weight_hh"), {4 * H, H}, matrix(4)),
        .bias_ih = parameters_.declare(name("bias_ih"), {4 * H}, forget),
        .bias_hh = parameters_.declare(name("bias_hh"), {4 * H}, vector),
    });
  }
  if (!config_.tie_weights) {
    output_weight_ = parameters_.declare("output.weight", {V, H}, matrix(1));
  }
  output_bias_ = parameters_.declare("output.bias", {V}, vector);
}

RecurrentState LstmLm::initial_state(std::int64_t batch) const {
  const Shape shape{batch, config_.hidden};
  RecurrentState state;
  for (std::int64_t l = 0; l < config_.layers; ++l) {
    state.tensors.emplace_back(fmt::format("h_l{}", l),
                               Tensor(device_, shape, parameters_.compute_type()));
    state.tensors.emplace_back(fmt::format("c_l{}", l), Tensor(device_, shape, DType::f32));
  }
  state.zero();
  return state;
}

Var LstmLm::hidden(Pass& pass, const Tensor& token, const Tensor& reset,
                   const RecurrentState& state) {
  Tape& tape = pass.tape();
  const auto weight = [&](std::size_t index) { return parameters_.on(tape, index); };
  const auto drop = [&](Var x, std::uint64_t place) {
    if (!pass.training() || config_.dropout == 0) return x;
    return dropout(x, static_cast<float>(config_.dropout), pass.random(place));
  };
  Var x;
  {
    const Tape::Layer layer(tape, "embedding");
    x = embedding(weight(embedding_), token);  // [T, B, E]
    x = drop(x, 0);
  }
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Tape::Layer layer(tape, fmt::format("lstm layer {}", l));
    const Weights& weights = layers_[l];
    const Tensor &h = state.tensors[2 * l].second, &c = state.tensors[2 * l + 1].second;
    const Var initial[] = {tape.constant(h), tape.constant(c)};
    const RecurrentOutput y = recurrent_sequence(cell_kind("lstm"), x,
                                                 {.weight_ih = weight(weights.weight_ih),
                                                  .weight_hh = weight(weights.weight_hh),
                                                  .bias_ih = weight(weights.bias_ih),
                                                  .bias_hh = weight(weights.bias_hh)},
                                                 initial, reset);
    pass.carry(y.last[0].value(), h);  // [B, H]
    pass.carry(y.last[1].value(), c);
    x = drop(y.h, l + 1);  // [T, B, H]
  }
  return x;
}

Loss LstmLm::loss(Pass& pass, const Batch& batch, const RecurrentState& state) {
  const Var h = hidden(pass, batch["token"], batch.reset, state);
  const Tape::Layer layer(pass.tape(), "output");
  const double smoothing = pass.training() ? config_.label_smoothing : 0;
  return linear_cross_entropy(h, parameters_.on(pass.tape(), output_weight()),
                              parameters_.on(pass.tape(), output_bias_), batch["target"],
                              {.label_smoothing = static_cast<float>(smoothing)});
}

Tensor LstmLm::next_logits(Pass& pass, const Tensor& token, const RecurrentState& state) {
  const Var h = hidden(pass, token, {}, state);  // [1, B, H]
  const Tape::Layer layer(pass.tape(), "output");
  return linear(h, parameters_.on(pass.tape(), output_weight()),
                parameters_.on(pass.tape(), output_bias_))
      .value();
}

}  // namespace carousel
