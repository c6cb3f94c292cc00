#include "models/classifier.h"

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
                       std::uint64_t seed)
    : config_(config),
      embedding_(parameters_.declare("embedding.weight", {config.vocabulary, config.embed},
                                     {.kind = Initializer::Kind::normal, .scale = 1})),
      encoder_(config.encoder, config.embed, parameters_) {
  if (config.encoder.residual && config.pooling == "last") {
    throw ConfigError("model.residual needs model.pooling = \"mean\" or \"max\"");
  }
  const std::int64_t C = config.classes, H = config.encoder.output_width();
  output_weight_ = parameters_.declare("output.weight", {C, H}, config.encoder.matrix(1));
  output_bias_ = parameters_.declare("output.bias", {C}, config.encoder.vector());
  parameters_.materialize(device, compute, seed);
}

Var Classifier::pooled(Pass& pass, const Batch& batch) {
  const Field& token = batch.at("token");
  const Var x = encoder_.read(pass, embedding_, token.values);  // [T, B, E]
  const auto encode = [&](Encoder::Output output) {
    return encoder_.run(pass, x, {}, token.lengths, {}, output);
  };
  if (config_.pooling == "last") return encode(Encoder::Output::last);
  const Var h = encode(Encoder::Output::steps);
  const Tape::Layer layer(pass.tape(), "pooling");
  return pool(h, config_.pooling == "mean" ? Pooling::mean : Pooling::max, token.lengths);
}

Objective Classifier::objective(Pass& pass, const Batch& batch, const State&) {
  const Var h = pooled(pass, batch);
  const Tape::Layer layer(pass.tape(), "output");
  const double smoothing = pass.training() ? config_.label_smoothing : 0;
  return {.terms = {{"loss",
                     linear_cross_entropy(h, parameters_.on(pass.tape(), output_weight_),
                                          parameters_.on(pass.tape(), output_bias_), batch["label"],
                                          {.label_smoothing = static_cast<float>(smoothing),
                                           .denominator = pass.denominator()})}},
          .prediction = pass.wants_prediction() ? class_logits(pass, h) : Tensor{}};
}

Tensor Classifier::class_logits(Pass& pass, Var pooled) {
  return linear(pooled, parameters_.on(pass.tape(), output_weight_),
                parameters_.on(pass.tape(), output_bias_))
      .value();
}

Tensor Classifier::predict(Pass& pass, const Batch& batch) {
  const Var h = pooled(pass, batch);
  const Tape::Layer layer(pass.tape(), "output");
  return class_logits(pass, h);
}

}  // namespace carousel
