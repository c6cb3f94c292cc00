#include "models/ngram/ngram_lm.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/context_windows/context_windows.h"

namespace carousel {
namespace {

using Kind = Initializer::Kind;

// PyTorch's nn.Linear begins both its matrix and its bias with U(±1/√fan_in).
constexpr Initializer kMatrix{.kind = Kind::fan_in, .scale = 1};
Initializer bias_of(std::int64_t fan_in) {
  return {.kind = Kind::uniform, .scale = 1 / std::sqrt(static_cast<double>(fan_in))};
}

Initializer embedding_of(const NgramLmConfig& config) {
  if (config.embed_range > 0) return {.kind = Kind::uniform, .scale = config.embed_range};
  // Tied weights serve as output matrix too, whose scale must suit the softmax.
  return config.tie_weights ? kMatrix : Initializer{.kind = Kind::normal, .scale = 1};
}

}  // namespace

void NgramLmConfig::describe(OptionSection& section) {
  const RealRange probability{.least = 0, .most = 1, .below_most = true};
  section.add("context", context, "tokens that the next one is predicted from: n - 1 of n-grams",
              {1, 4096});
  section.add("embed", embed, "width of the token embedding", {1, std::int64_t{1} << 20});
  section.add("embed_range", embed_range,
              "the embedding begins uniform within ± this; 0: normal, or if tied as other matrices",
              {.least = 0});
  section.add("hidden", hidden, "hidden units", {1, std::int64_t{1} << 20});
  std::vector<std::pair<std::string, Activation>> names;
  for (const auto& [name, kind] : activations()) names.emplace_back(name, kind);
  section.add("activation", activation, "function of the hidden units", names);
  section.add("dropout", dropout, "probability, of the joined embeddings and of the hidden units",
              probability);
  section.add("tie_weights", tie_weights, "use the embedding as output matrix");
  section.add("label_smoothing", label_smoothing, "share of the target spread evenly", probability);
  output.describe(section);
}

NgramLm::NgramLm(const NgramLmConfig& config, const Device& device, DType compute,
                 const Beginning& beginning)
    : config_(config), device_(device) {
  const std::int64_t V = config.vocabulary, E = config.embed, H = config.hidden;
  const std::int64_t joined = config.context * E;
  if (config.tie_weights && E != H) {
    throw ConfigError(fmt::format(
        "model.tie_weights needs model.embed equal to model.hidden; they are {} and {}", E, H));
  }
  embedding_ = parameters_.declare("embedding.weight", {V, E}, embedding_of(config));
  hidden_weight_ = parameters_.declare("hidden.weight", {H, joined}, kMatrix);
  hidden_bias_ = parameters_.declare("hidden.bias", {H}, bias_of(joined));
  gain_ = parameters_.declare("norm.weight", {H}, {.kind = Kind::constant, .scale = 1});
  bias_ = parameters_.declare("norm.bias", {H}, {});
  output_.emplace(config.output, OutputLayer::Sizes{V, H},
                  OutputLayer::Beginnings{kMatrix, bias_of(H)}, parameters_,
                  config.tie_weights ? &embedding_ : nullptr);
  output_->expect_smoothing(config.label_smoothing);
  parameters_.materialize(device, compute, beginning);
  output_->materialize();
}

State NgramLm::initial_state(std::int64_t batch) const {
  State state{
      {{.name = "context", .value = Tensor(device_, {batch, config_.context}, DType::i32)}}};
  state.reset();
  return state;
}

Tensor NgramLm::contexts(Pass& pass, const Batch& batch, const State& state) const {
  const Tensor &token = batch["token"], &before = state.at("context").value;
  const Tensor all =
      pass.tape().tensor({token.shape()[0], token.shape()[1], config_.context}, DType::i32);
  const Tensor after = pass.tape().tensor(before.shape(), DType::i32);
  run(device_, ContextWindows{.token = token.view<std::int32_t, 2>(),
                              .reset = batch.reset.view<std::int32_t, 2>(),
                              .before = before.view<std::int32_t, 2>(),
                              .width = config_.context,
                              .context = all.mutable_view<std::int32_t, 3>(),
                              .after = after.mutable_view<std::int32_t, 2>()});
  pass.carry(after, before);
  return all;
}

Var NgramLm::drop(Pass& pass, Var x, std::uint64_t place) const {
  if (!pass.training()) return x;
  return dropout(x, static_cast<float>(config_.dropout), pass.random(place));
}

Var NgramLm::hidden_units(Pass& pass, const Tensor& context) {
  Tape& tape = pass.tape();
  const Var x = [&] {
    const Tape::Layer layer(tape, "embedding");
    return drop(pass, joined_embeddings(parameters_.on(tape, embedding_), context), 0);
  }();
  const Tape::Layer layer(tape, "hidden");
  const Var sums =
      linear(x, parameters_.on(tape, hidden_weight_), parameters_.on(tape, hidden_bias_));
  const Var normal = layer_norm(sums, parameters_.on(tape, gain_), parameters_.on(tape, bias_));
  return drop(pass, activation(normal, config_.activation), 1);
}

Objective NgramLm::objective(Pass& pass, const Batch& batch, const State& state) {
  const Var h = hidden_units(pass, contexts(pass, batch, state));  // [T, B, H]
  return {.terms = {{"loss", output_->loss(pass, h, batch["target"], config_.label_smoothing)}},
          .choices = pass.wants_choices() ? output_->likeliest(pass, h.value()) : Tensor{}};
}

Tensor NgramLm::logits(Pass& pass, const Field& token, const State& state) {
  const Tensor& before = state.at("context").value;
  Tape& tape = pass.tape();
  const Tensor last = tape.tensor(before.shape(), DType::i32);
  const Tensor after = tape.tensor(before.shape(), DType::i32);
  run(device_, ContextWindows{.token = token.values.view<std::int32_t, 2>(),
                              .lengths = token.lengths.view<std::int32_t, 1>(),
                              .before = before.view<std::int32_t, 2>(),
                              .width = config_.context,
                              .last = last.mutable_view<std::int32_t, 2>(),
                              .after = after.mutable_view<std::int32_t, 2>()});
  pass.carry(after, before);
  return output_->logits(pass, hidden_units(pass, last));  // [B, H]
}

Tensor NgramLm::hidden(Pass& pass, const Batch& batch, const State& state) {
  return hidden_units(pass, contexts(pass, batch, state)).value();
}

}  // namespace carousel
