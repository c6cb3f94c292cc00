#include "models/recurrent/recurrent_lm.h"

#include <fmt/format.h>

#include "kernels/common/check.h"

namespace carousel {
namespace {

std::size_t declare_embedding(const RecurrentLmConfig& config, Parameters& parameters) {
  if (config.tie_weights && config.embed != config.encoder.output_width()) {
    throw ConfigError(fmt::format(
        "model.tie_weights needs model.embed as wide as the top layer; they are {} and {}",
        config.embed, config.encoder.output_width()));
  }
  // Tied weights serve as output matrix too, whose scale must suit the softmax.
  using Kind = Initializer::Kind;
  Initializer tokens =
      config.tie_weights ? config.encoder.matrix(1) : Initializer{.kind = Kind::normal, .scale = 1};
  if (config.embed_range > 0) tokens = {.kind = Kind::uniform, .scale = config.embed_range};
  return parameters.declare("embedding.weight", {config.vocabulary, config.embed}, tokens);
}

}  // namespace

void RecurrentLmConfig::describe(OptionSection& section) {
  section.add("embed", embed, "width of the token embedding", {1, std::int64_t{1} << 20});
  section.add("embed_range", embed_range,
              "the embedding begins uniform within ± this; 0: normal, or if tied as other matrices",
              {.least = 0});
  encoder.describe(section);
  section.add("tie_weights", tie_weights, "use the embedding as output matrix");
  section.add("label_smoothing", label_smoothing, "share of the target spread evenly",
              {.least = 0, .most = 1, .below_most = true});
  output.describe(section);
}

RecurrentLm::RecurrentLm(const RecurrentLmConfig& config, const Device& device, DType compute,
                         const Beginning& beginning)
    : config_(config),
      device_(device),
      embedding_(declare_embedding(config, parameters_)),
      encoder_(config.encoder, config.embed, parameters_),
      output_(config.output, {config.vocabulary, config.encoder.output_width()},
              {config.encoder.matrix(1), config.encoder.vector()}, parameters_,
              config.tie_weights ? &embedding_ : nullptr) {
  output_.expect_smoothing(config.label_smoothing);
  parameters_.materialize(device, compute, beginning);
  output_.materialize();
}

State RecurrentLm::initial_state(std::int64_t batch) const {
  return encoder_.initial_state(device_, batch);
}

Encoder::Result RecurrentLm::encode(Pass& pass, const Field& token, const Tensor& reset,
                                    const State& state, Encoder::Output output) {
  const Var x = encoder_.read(pass, embedding_, token.values);  // [T, B, E]
  return encoder_.run(pass, x, {.reset = reset, .lengths = token.lengths, .state = &state}, output);
}

Objective RecurrentLm::objective(Pass& pass, const Batch& batch, const State& state) {
  // Without lengths, but for penalties: padding follows a line, and its targets are ignored.
  const Field token = config_.encoder.penalizes()
                          ? batch.at("token")
                          : Field{.name = "token", .values = batch["token"]};
  const auto [h, penalties, last] =
      encode(pass, token, batch.reset, state, Encoder::Output::steps);  // [T, B, H]
  Objective objective{
      .terms = {{"loss", output_.loss(pass, h, batch["target"], config_.label_smoothing)}},
      .choices = pass.wants_choices() ? output_.likeliest(pass, h.value()) : Tensor{}};
  objective.terms.insert(objective.terms.end(), penalties.begin(), penalties.end());
  return objective;
}

Tensor RecurrentLm::logits(Pass& pass, const Field& token, const State& state) {
  return output_.logits(pass, encode(pass, token, {}, state, Encoder::Output::last).output);
}

Tensor RecurrentLm::hidden(Pass& pass, const Batch& batch, const State& state) {
  return encode(pass, {.name = "token", .values = batch["token"]}, batch.reset, state,
                Encoder::Output::steps)
      .output.value();
}

}  // namespace carousel
