#include "models/seq2seq/seq2seq.h"

#include <utility>

namespace carousel {
namespace {

/// Tied weights serve as output matrix too, whose scale must suit the softmax.
std::size_t declare_embedding(const Seq2SeqConfig& config, const char* name,
                              std::int64_t vocabulary, bool tied, Parameters& parameters) {
  const Initializer tokens =
      tied ? config.encoder.matrix(1) : Initializer{.kind = Initializer::Kind::normal, .scale = 1};
  return parameters.declare(name, {vocabulary, config.embed}, tokens);
}

std::size_t declare_target_embedding(const Seq2SeqConfig& config, Parameters& parameters) {
  config.check();
  return declare_embedding(
      config, config.share_embeddings ? "embedding.weight" : "decoder.embedding.weight",
      config.vocabulary, config.tie_weights, parameters);
}

}  // namespace

Seq2Seq::Seq2Seq(const Seq2SeqConfig& config, const Device& device, DType compute,
                 const Beginning& beginning)
    : config_(config),
      device_(device),
      embedding_(declare_target_embedding(config, parameters_)),
      source_embedding_(config.share_embeddings
                            ? embedding_
                            : declare_embedding(config, "encoder.embedding.weight",
                                                config.source_vocabulary, false, parameters_)),
      encoder_(config.source_stack(), config.embed, parameters_),
      decoder_(config.target_stack(), config.input_width(), parameters_),
      bridge_(config.source_stack(), encoder_, parameters_),
      attention_(config, config.source_stack().output_width(), parameters_),
      output_(config.output, {config.vocabulary, config.width()},
              {config.encoder.matrix(1), config.encoder.vector()}, parameters_,
              config.tie_weights ? &embedding_ : nullptr) {
  output_.expect_smoothing(config.label_smoothing);
  parameters_.materialize(device, compute, beginning);
  output_.materialize();
}

Seq2Seq::Given Seq2Seq::read(Pass& pass, const Field& source) const {
  const Var x = encoder_.read(pass, source_embedding_, source.values);  // [S, B, E]
  const auto wanted = config_.attends() ? Encoder::Output::steps : Encoder::Output::last;
  const Encoder::Result result = encoder_.run(pass, x, {.lengths = source.lengths}, wanted);
  Tape& tape = pass.tape();
  return {.memory = attention_.memory(tape, result.output, source.lengths),
          .initial = bridge_(tape, result.last)};
}

Var Seq2Seq::fed_steps(Pass& pass, Var x, const Given& given) const {
  Tape& tape = pass.tape();
  const Tensor nothing = tape.tensor({1, x.shape()[1], config_.width()}, x.dtype());
  zero(nothing);
  Var before = tape.constant(nothing);
  std::vector<Var> states = given.initial, steps;
  for (std::int64_t t = 0; t < x.shape()[0]; ++t) {
    Encoder::Result result = decoder_.run(pass, with_fed(tape, time_step(x, t), before),
                                          {.initial = states, .step = t}, Encoder::Output::steps);
    before = attention_.attended(tape, result.output, given.memory);
    states = std::move(result.last);
    steps.push_back(before);
  }
  const Tape::Layer layer(tape, "input feeding");
  return join_steps(steps);
}

Var Seq2Seq::with_fed(Tape& tape, Var x, Var before) {
  const Tape::Layer layer(tape, "decoder input");
  return concatenate(x, before);
}

Seq2Seq::Steps Seq2Seq::decoded(Pass& pass, const Field& token, const Given& given) const {
  const Var x = decoder_.read(pass, embedding_, token.values);  // [T, B, E]
  if (config_.feeds()) return {.y = fed_steps(pass, x, given)};
  // Without lengths, but for penalties: padding follows a text, and its targets are ignored.
  const Tensor lengths = config_.encoder.penalizes() ? token.lengths : Tensor{};
  Encoder::Result result =
      decoder_.run(pass, x, {.lengths = lengths, .initial = given.initial}, Encoder::Output::steps);
  return {.y = attention_.attended(pass.tape(), result.output, given.memory),
          .penalties = std::move(result.penalties)};
}

Objective Seq2Seq::objective(Pass& pass, const Batch& batch, const State& /*state*/) {
  const Steps steps = decoded(pass, batch.at("token"), read(pass, batch.at("source")));
  Objective objective{
      .terms = {{"loss", output_.loss(pass, steps.y, batch["target"], config_.label_smoothing)}}};
  objective.terms.insert(objective.terms.end(), steps.penalties.begin(), steps.penalties.end());
  if (pass.wants_prediction()) objective.prediction = output_.logits(pass, steps.y);
  return objective;
}

}  // namespace carousel
