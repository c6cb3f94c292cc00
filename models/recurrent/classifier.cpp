#include "models/recurrent/classifier.h"

#include <fmt/format.h>

#include "kernels/common/check.h"

namespace carousel {

void ClassifierConfig::describe(OptionSection& section) {
  section.add("embed", embed, "width of the token embedding", {1, std::int64_t{1} << 20});
  encoder.describe(section);
  section.add("pooling", pooling, "what of the top layer's steps the label is read from",
              {"last", "mean", "max"});
  section.add("label_smoothing", label_smoothing, "share of the label spread evenly",
              {.least = 0, .most = 1, .below_most = true});
}

Classifier::Classifier(const ClassifierConfig& config, const Device& device, DType compute,
                       const Beginning& beginning)
    : config_(config),
      embedding_(parameters_.declare("embedding.weight", {config.vocabulary, config.embed},
                                     {.kind = Initializer::Kind::normal, .scale = 1})),
      encoder_(config.encoder, config.embed, parameters_) {
  if (config.pooling == "last" && (config.encoder.residual || config.encoder.penalizes())) {
    throw ConfigError(fmt::format(
        "model.{} needs model.pooling = \"mean\" or \"max\"",
        config.encoder.residual ? "residual" : "activation_penalty or temporal_penalty"));
  }
  const std::int64_t C = config.classes, H = config.encoder.output_width();
  output_weight_ = parameters_.declare("output.weight", {C, H}, config.encoder.matrix(1));
  output_bias_ = parameters_.declare("output.bias", {C}, config.encoder.vector());
  parameters_.materialize(device, compute, beginning);
}

Encoder::Result Classifier::pooled(Pass& pass, const Batch& batch) {
  const Field& token = batch.at("token");
  const Var x = encoder_.read(pass, embedding_, token.values);  // [T, B, E]
  const auto encode = [&](Encoder::Output output) {
    return encoder_.run(pass, x, {.lengths = token.lengths}, output);
  };
  if (config_.pooling == "last") return encode(Encoder::Output::last);
  Encoder::Result result = encode(Encoder::Output::steps);
  const Tape::Layer layer(pass.tape(), "pooling");
  const Pooling kind = config_.pooling == "mean" ? Pooling::mean : Pooling::max;
  result.output = pool(result.output, kind, token.lengths);
  return result;
}

Objective Classifier::objective(Pass& pass, const Batch& batch, const State&) {
  const auto [h, penalties, last] = pooled(pass, batch);
  const Tape::Layer layer(pass.tape(), "output");
  const double smoothing = pass.training() ? config_.label_smoothing : 0;
  Objective objective{
      .terms = {{"loss",
                 linear_cross_entropy(h, parameters_.on(pass.tape(), output_weight_),
                                      parameters_.on(pass.tape(), output_bias_), batch["label"],
                                      {.label_smoothing = static_cast<float>(smoothing),
                                       .denominator = pass.denominator()})}},
      .prediction = pass.wants_prediction() ? class_logits(pass, h) : Tensor{}};
  objective.terms.insert(objective.terms.end(), penalties.begin(), penalties.end());
  return objective;
}

Tensor Classifier::class_logits(Pass& pass, Var pooled) {
  return linear(pooled, parameters_.on(pass.tape(), output_weight_),
                parameters_.on(pass.tape(), output_bias_))
      .value();
}

Tensor Classifier::predict(Pass& pass, const Batch& batch) {
  const Var h = pooled(pass, batch).output;
  const Tape::Layer layer(pass.tape(), "output");
  return class_logits(pass, h);
}

Tensor Classifier::hidden(Pass& pass, const Batch& batch, const State&) {
  const Var x = encoder_.read(pass, embedding_, batch["token"]);
  return encoder_.run(pass, x, {.reset = batch.reset}, Encoder::Output::steps).output.value();
}

}  // namespace carousel
