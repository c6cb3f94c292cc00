#include "models/seq2seq/config.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::int64_t kWidestHead = 256;  // of kernels/attention

}  // namespace

void Seq2SeqConfig::describe(OptionSection& section) {
  section.add("embed", embed, "width of the token embeddings", {1, std::int64_t{1} << 20});
  encoder.describe(section);
  section.add("attention", attention, "how the decoder scores the steps of the source",
              {{"none", Attention::none},
               {"dot", Attention::dot},
               {"general", Attention::general},
               {"additive", Attention::additive},
               {"concat", Attention::concat}});
  section.add("attention_heads", attention_heads, "heads of the attention", {1, 1024})
      .when([this] { return attends(); }, "model.attention is none");
  section
      .add("input_feeding", input_feeding,
           "each step of the decoder also reads what the step before gave to the output layer")
      .when([this] { return attends() && !looks_first(); },
            "model.attention is none, or additive, which reads what it looks at");
  section.add("share_embeddings", share_embeddings,
              "source and target tokens have one embedding; needs data.shared_vocabulary");
  section.add("tie_weights", tie_weights, "use the decoder's embedding as output matrix");
  section.add("label_smoothing", label_smoothing, "share of the target spread evenly",
              {.least = 0, .most = 1, .below_most = true});
  const auto scheduled = [this] { return scheduled_sampling; };
  const std::string off = "model.scheduled_sampling is false";
  section.add(
      "scheduled_sampling", scheduled_sampling,
      "in training, read the decoder's own likeliest tokens in place of some of the target's");
  section
      .add("teacher_forcing", teacher_forcing.decay,
           "how the share of the target's tokens falls from step to step",
           {{"linear", TeacherForcing::Decay::linear},
            {"exponential", TeacherForcing::Decay::exponential},
            {"inverse_sigmoid", TeacherForcing::Decay::inverse_sigmoid}})
      .when(scheduled, off);
  section
      .add("teacher_forcing_steps", teacher_forcing.steps,
           "K of the share at step i: 1 − i/K, exp(−i/K) or K/(K + exp(i/K))", {.least = 1e-3})
      .when(scheduled, off);
  section
      .add("teacher_forcing_least", teacher_forcing.least, "the share is never below it",
           {.least = 0, .most = 1})
      .when(scheduled, off);
  output.describe(section);
}

EncoderConfig Seq2SeqConfig::source_stack() const {
  EncoderConfig config = encoder;
  config.name = "encoder";
  config.activation_penalty = config.temporal_penalty = 0;
  return config;
}

EncoderConfig Seq2SeqConfig::target_stack() const {
  EncoderConfig config = encoder;
  config.name = "decoder";
  config.places = std::uint64_t{1} << 35U;
  config.bidirectional = config.share_directions = false;
  config.learn_initial_state = false;  // it begins with states of the encoder
  return config;
}

void Seq2SeqConfig::check() const {
  if (share_embeddings && !same_vocabulary) {
    throw ConfigError(
        "model.share_embeddings needs one vocabulary of both texts: data.shared_vocabulary = true");
  }
  if (tie_weights && embed != width()) {
    throw ConfigError(fmt::format(
        "model.tie_weights needs model.embed as wide as the top layer; they are {} and {}", embed,
        width()));
  }
  if (scheduled_sampling && output.kind != OutputConfig::Kind::full) {
    throw ConfigError("model.scheduled_sampling needs model.output = full");
  }
  for (const auto& [wanted, key] :
       {std::pair{encoder.variational_recurrent > 0, "variational_recurrent"},
        {encoder.activation_penalty > 0, "activation_penalty"},
        {encoder.temporal_penalty > 0, "temporal_penalty"},
        {encoder.gradient_norm_penalty > 0, "gradient_norm_penalty"}}) {
    if (!(goes_by_steps() || scheduled_sampling) || !wanted) continue;
    throw ConfigError(fmt::format(
        "model.{} and model.{} exclude each other: the one is of a whole sequence, the other goes "
        "step by step",
        key,
        looks_first() ? "attention = additive"
        : feeds()     ? "input_feeding"
                      : "scheduled_sampling"));
  }
  if (!attends()) return;
  if (adds() && attention_heads != 1) {
    throw ConfigError(
        fmt::format("model.attention_heads is {}, expected 1 with model.attention = {}: its scores "
                    "have one head",
                    attention_heads, looks_first() ? "additive" : "concat"));
  }
  if (adds()) return;
  if (width() % attention_heads != 0 || width() / attention_heads > kWidestHead) {
    throw ConfigError(fmt::format(
        "model.attention_heads is {} and the top layer has {} units, expected a divisor of them "
        "and at most {} units a head",
        attention_heads, width(), kWidestHead));
  }
}

}  // namespace carousel
