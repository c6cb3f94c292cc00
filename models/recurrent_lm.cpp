#include "models/recurrent_lm.h"

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
}

RecurrentLm::RecurrentLm(const RecurrentLmConfig& config, const Device& device, DType compute,
                         const Beginning& beginning)
    : config_(config),
      device_(device),
      embedding_(declare_embedding(config, parameters_)),
      encoder_(config.encoder, config.embed, parameters_) {
  const std::int64_t V = config.vocabulary, H = config.encoder.output_width();
  if (!config.tie_weights) {
    output_weight_ = parameters_.declare("output.weight", {V, H}, config.encoder.matrix(1));
  }
  output_bias_ = parameters_.declare("output.bias", {V}, config.encoder.vector());
  parameters_.materialize(device, compute, beginning);
}

State RecurrentLm::initial_state(std::int64_t batch) const {
  return encoder_.initial_state(device_, batch);
}

Encoder::Result RecurrentLm::encode(Pass& pass, const Field& token, const Tensor& reset,
                                    const State& state, Encoder::Output output) {
  const Var x = encoder_.read(pass, embedding_, token.values);  // [T, B, E]
  return encoder_.run(pass, x, reset, token.lengths, state, output);
}

Objective RecurrentLm::objective(Pass& pass, const Batch& batch, const State& state) {
  // Without lengths, but for penalties: padding follows a line, and its targets are ignored.
  const Field token = config_.encoder.penalizes()
                          ? batch.at("token")
                          : Field{.name = "token", .values = batch["token"]};
  const auto [h, penalties] =
      encode(pass, token, batch.reset, state, Encoder::Output::steps);  // [T, B, H]
  const Tape::Layer layer(pass.tape(), "output");
  const double smoothing = pass.training() ? config_.label_smoothing : 0;
  Objective objective{
      .terms = {
          {"loss", linear_cross_entropy(h, parameters_.on(pass.tape(), output_weight()),
                                        parameters_.on(pass.tape(), output_bias_), batch["target"],
                                        {.label_smoothing = static_cast<float>(smoothing),
                                         .denominator = pass.denominator()})}}};
  objective.terms.insert(objective.terms.end(), penalties.begin(), penalties.end());
  return objective;
}

Tensor RecurrentLm::logits(Pass& pass, const Field& token, const State& state) {
  const Var h = encode(pass, token, {}, state, Encoder::Output::last).output;  // [B, H]
  const Tape::Layer layer(pass.tape(), "output");
  return linear(h, parameters_.on(pass.tape(), output_weight()),
                parameters_.on(pass.tape(), output_bias_))
      .value();
}

Tensor RecurrentLm::hidden(Pass& pass, const Batch& batch, const State& state) {
  return encode(pass, {.name = "token", .values = batch["token"]}, batch.reset, state,
                Encoder::Output::steps)
      .output.value();
}

}  // namespace carousel
