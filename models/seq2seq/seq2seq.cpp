#include "models/seq2seq/seq2seq.h"

#include <utility>

#include "engine/model/sampling.h"

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

std::size_t Seq2Seq::top_state() const {
  std::int64_t below = 0;
  for (std::int64_t l = 0; l + 1 < config_.encoder.layers; ++l) below += decoder_.states(l);
  return static_cast<std::size_t>(below);
}

Seq2Seq::Place Seq2Seq::beginning(Tape& tape, const Given& given, std::int64_t rows) const {
  Place place{.states = given.initial};
  if (!config_.feeds()) return place;
  const Tensor nothing = tape.tensor({1, rows, config_.width()}, parameters_.compute_type());
  zero(nothing);
  place.fed = tape.constant(nothing);
  return place;
}

Var Seq2Seq::advanced(Pass& pass, Var x, Place& place, const Given& given) const {
  Tape& tape = pass.tape();
  const bool first = config_.looks_first();
  if (first) place.fed = attention_.context(tape, place.states[top_state()], given.memory);
  if (place.fed.present()) x = with_fed(tape, x, place.fed);
  Encoder::Result result =
      decoder_.run(pass, x, {.initial = place.states, .step = place.step++, .loop = &place.loop},
                   Encoder::Output::steps);
  place.states = std::move(result.last);
  const Var y = first ? attention_.combined(tape, place.fed, result.output)
                      : attention_.attended(tape, result.output, given.memory);
  if (config_.feeds()) place.fed = y;
  return y;
}

Var Seq2Seq::stepped(Pass& pass, Var x, const Given& given) const {
  Tape& tape = pass.tape();
  Place place = beginning(tape, given, x.shape()[1]);
  std::vector<Var> steps;
  for (std::int64_t t = 0; t < x.shape()[0]; ++t) {
    steps.push_back(advanced(pass, time_step(x, t), place, given));
  }
  const Tape::Layer layer(tape, "input feeding");
  return join_steps(steps);
}

Tensor Seq2Seq::scheduled_tokens(Pass& pass, const Tensor& token, const Given& given) const {
  constexpr std::uint64_t kPlace = std::uint64_t{1} << 41U;  // beyond those of other random numbers
  Tape& tape = pass.tape();
  const std::int64_t T = token.shape()[0], B = token.shape()[1];
  const Tensor result = tape.tensor(token.shape(), DType::i32), own = tape.tensor({B}, DType::i32);
  copy(token.slice(0, 1), result.slice(0, 1));
  Place place = beginning(tape, given, B);
  for (std::int64_t t = 0; t + 1 < T; ++t) {
    const Var x = decoder_.read(pass, embedding_, result.slice(t, 1));
    // No gradient reaches these values, and the tape's rules for them do not run.
    choose_tokens(
        output_.logits(pass, advanced(pass, x, place, given)).reshaped({B, config_.vocabulary}),
        {.greedy = true}, {}, own);
    run(device_, ScheduledTokens{.given = token.slice(t + 1, 1).view<std::int32_t, 1>(),
                                 .own = own.view<std::int32_t, 1>(),
                                 .forcing = config_.teacher_forcing,
                                 .random = pass.random(kPlace),
                                 .first = (t + 1) * B,
                                 .token = result.slice(t + 1, 1).mutable_view<std::int32_t, 1>()});
  }
  return result;
}

Var Seq2Seq::with_fed(Tape& tape, Var x, Var before) {
  const Tape::Layer layer(tape, "decoder input");
  return concatenate(x, before);
}

Seq2Seq::Steps Seq2Seq::decoded(Pass& pass, const Field& token, const Given& given) const {
  const bool scheduled = config_.scheduled_sampling && pass.training();
  const Tensor read = scheduled ? scheduled_tokens(pass, token.values, given) : token.values;
  const Var x = decoder_.read(pass, embedding_, read);  // [T, B, E]
  if (config_.goes_by_steps()) return {.y = stepped(pass, x, given)};
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
  if (pass.wants_choices()) objective.choices = output_.likeliest(pass, steps.y.value());
  return objective;
}

}  // namespace carousel
