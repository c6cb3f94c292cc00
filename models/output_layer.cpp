#include "models/output_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <string_view>

#include "engine/model/sampling.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

using Kind = OutputConfig::Kind;

/// "2000, 10000" as numbers.
std::vector<std::int64_t> numbers_of(std::string_view text) {
  std::vector<std::int64_t> result;
  std::string_view rest = text;
  while (true) {
    const std::size_t end = std::min(rest.find(','), rest.size());
    std::string_view word = rest.substr(0, end);
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
    std::int64_t number = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || stop != word.data() + word.size()) {
      throw ConfigError(fmt::format(
          "model.cutoffs is \"{}\", expected numbers with commas between, as in \"2000, 10000\"",
          text));
    }
    result.push_back(number);
    if (end == rest.size()) return result;
    rest.remove_prefix(end + 1);
  }
}

}  // namespace

void OutputConfig::describe(OptionSection& section) {
  section.add("output", kind, "how the output layer is made and trained",
              {{"full", Kind::full},
               {"adaptive", Kind::adaptive},
               {"sampled", Kind::sampled},
               {"nce", Kind::nce}});
  section
      .add("cutoffs", cutoffs,
           "where words by frequency are cut into clusters: the first word of each")
      .when([this] { return kind == Kind::adaptive; }, "model.output is not adaptive");
  section
      .add("div_value", div_value, "each cluster is narrower than the one before by this",
           {.least = 1})
      .when([this] { return kind == Kind::adaptive; }, "model.output is not adaptive");
  const std::string not_drawn = "model.output is not sampled or nce";
  section.add("samples", samples, "words drawn at random for a batch", {1, std::int64_t{1} << 20})
      .when([this] { return draws(); }, not_drawn);
  section
      .add("sampler", sampler, "how probable each word is: by its rank, or as often as it occurs",
           {{"log_uniform", Sampler::log_uniform}, {"unigram", Sampler::unigram}})
      .when([this] { return draws(); }, not_drawn);
}

void OutputConfig::take(const Vocabulary& vocabulary) {
  const TokenKind tokens = vocabulary.rules().kind;
  by_count = tokens != TokenKind::byte && tokens != TokenKind::sentencepiece &&
             tokens != TokenKind::byte_bpe;
  counts.clear();
  for (std::int64_t id = 0; id < vocabulary.size(); ++id) {
    counts.push_back(vocabulary.count(static_cast<std::int32_t>(id)));
  }
}

void OutputConfig::expect_by_count(const char* what) const {
  if (by_count) return;
  throw ConfigError(
      fmt::format("{}, and neither bytes nor SentencePiece's pieces nor byte_bpe's tokens are in "
                  "order of frequency; expected "
                  "data.tokens = word or char",
                  what));
}

OutputLayer::OutputLayer(const OutputConfig& config, const Sizes& sizes,
                         const Beginnings& beginnings, Parameters& parameters,
                         const std::size_t* tied)
    : config_(config), parameters_(parameters) {
  if (config.kind == Kind::adaptive) {
    if (tied != nullptr) {
      throw ConfigError(
          "model.tie_weights is true and model.output adaptive, whose clusters have matrices of "
          "their own; expected model.output = full");
    }
    declare_clusters(sizes, beginnings);
    return;
  }
  declare_full(sizes, beginnings, tied);
}

void OutputLayer::declare_full(const Sizes& sizes, const Beginnings& beginnings,
                               const std::size_t* tied) {
  const ParameterOptions options{.row_sparse = config_.draws()};
  weight_ = tied != nullptr
                ? *tied
                : parameters_.declare(config_.name + ".weight", {sizes.vocabulary, sizes.width},
                                      beginnings.matrix, options);
  if (!config_.draws()) {
    if (config_.bias) {
      bias_ = parameters_.declare(config_.name + ".bias", {sizes.vocabulary}, beginnings.bias);
    }
    return;
  }
  if (config_.sampler == OutputConfig::Sampler::log_uniform) {
    config_.expect_by_count("model.sampler is log_uniform");
  }
  bias_ = parameters_.declare(config_.name + ".bias", {sizes.vocabulary}, {},
                              options);  // materialize()
}

void OutputLayer::materialize() {
  if (!config_.draws()) return;
  const std::int64_t vocabulary = parameters_.shape(weight_)[0];
  std::vector<double> weights;
  for (std::int64_t word = 0; word < vocabulary; ++word) {
    const auto rank = static_cast<double>(word);
    // A word that the text does not have counts as if it had it once: it may still be a target.
    weights.push_back(config_.sampler == OutputConfig::Sampler::log_uniform
                          ? std::log1p(1 / (rank + 1))
                          : static_cast<double>(std::max<std::int64_t>(
                                1, config_.counts.at(static_cast<std::size_t>(word)))));
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<float> expected, begins;
  for (const double weight : weights) {
    const double log_q = std::log(weight / sum);
    expected.push_back(static_cast<float>(log_q + std::log(static_cast<double>(config_.samples))));
    begins.push_back(static_cast<float>(log_q));
  }
  const Device& device = parameters_.device();
  table_ = Tensor(device, {vocabulary}, DType::i64);
  log_expected_ = Tensor(device, {vocabulary}, DType::f32);
  copy_from_host(table_, alias_columns(weights).data());
  copy_from_host(log_expected_, expected.data());
  copy_from_host(parameters_.weight(bias_), begins.data());
}

void OutputLayer::declare_clusters(const Sizes& sizes, const Beginnings& beginnings) {
  config_.expect_by_count("model.output is adaptive");
  const std::vector<std::int64_t> cutoffs = numbers_of(config_.cutoffs);
  try {
    cutoffs_ = adaptive_cutoffs(cutoffs, sizes.vocabulary);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("model.cutoffs: {}", error.what()));
  }
  weight_ = parameters_.declare(config_.name + ".head.weight", {cutoffs_.head(), sizes.width},
                                beginnings.matrix);
  bias_ = parameters_.declare(config_.name + ".head.bias", {cutoffs_.head()}, beginnings.bias);
  double narrower = 1;
  for (int k = 0; k < cutoffs_.clusters; ++k) {
    narrower *= config_.div_value;
    const auto width = static_cast<std::int64_t>(static_cast<double>(sizes.width) / narrower);
    if (width == 0) {
      throw ConfigError(fmt::format(
          "model.div_value is {}, which leaves no unit of {} for cluster {}, expected less",
          config_.div_value, sizes.width, k));
    }
    const std::string name = fmt::format("{}.tail.{}.", config_.name, k);
    projections_.push_back(
        parameters_.declare(name + "0.weight", {width, sizes.width}, beginnings.matrix));
    tails_.push_back(
        parameters_.declare(name + "1.weight", {cutoffs_.words(k), width}, beginnings.matrix));
  }
}

void OutputLayer::expect_smoothing(double label_smoothing) const {
  if (config_.kind == Kind::full || label_smoothing == 0) return;
  throw ConfigError(fmt::format(
      "model.label_smoothing is {}, expected 0 unless model.output is full", label_smoothing));
}

Var OutputLayer::bias(Tape& tape) const {
  return bias_ == kAbsent ? Var{} : parameters_.on(tape, bias_);
}

Loss OutputLayer::sampled(const Pass& pass, Var hidden, const Tensor& target) const {
  constexpr std::uint64_t kPlace = std::uint64_t{1} << 40U;  // beyond those of the model's masks
  Tape& tape = pass.tape();
  return sampled_loss(
      hidden, parameters_.on(tape, weight_), parameters_.on(tape, bias_), target,
      {.kind = config_.kind == Kind::nce ? SampledKind::noise : SampledKind::softmax,
       .samples = config_.samples,
       .table = table_,
       .log_expected = log_expected_,
       .random = pass.random(kPlace),
       .denominator = pass.denominator()});
}

AdaptiveParameters OutputLayer::clusters(Tape& tape) const {
  AdaptiveParameters result{.cutoffs = cutoffs_,
                            .head = parameters_.on(tape, weight_),
                            .head_bias = parameters_.on(tape, bias_),
                            .tails = {}};
  for (std::size_t k = 0; k < tails_.size(); ++k) {
    result.tails.push_back(
        {parameters_.on(tape, projections_[k]), parameters_.on(tape, tails_[k])});
  }
  return result;
}

Loss OutputLayer::loss(const Pass& pass, Var hidden, const Tensor& target,
                       double label_smoothing) const {
  Tape& tape = pass.tape();
  const Tape::Layer layer(tape, "output");
  if (config_.kind == Kind::adaptive) {
    return adaptive_softmax(hidden, clusters(tape), target, pass.denominator());
  }
  if (config_.draws() && pass.training()) return sampled(pass, hidden, target);
  const double smoothing = pass.training() ? label_smoothing : 0;
  return linear_cross_entropy(
      hidden, parameters_.on(tape, weight_), bias(tape), target,
      {.label_smoothing = static_cast<float>(smoothing), .denominator = pass.denominator()});
}

Tensor OutputLayer::logits(const Pass& pass, Var hidden) const {
  Tape& tape = pass.tape();
  const Tape::Layer layer(tape, "output");
  if (config_.kind == Kind::adaptive) return adaptive_log_probabilities(hidden, clusters(tape));
  const Var weight = parameters_.on(tape, weight_), added = bias(tape);
  return (added.present() ? linear(hidden, weight, added) : matmul(hidden, weight, true)).value();
}

Tensor OutputLayer::likeliest(const Pass& pass, const Tensor& hidden) const {
  constexpr std::int64_t kLogits = std::int64_t{1} << 23;  // 32 MB
  const Shape& shape = hidden.shape();
  const std::int64_t width = shape[shape.rank() - 1], count = hidden.size() / width;
  const Tensor rows = hidden.reshaped({count, width});
  const Tensor chosen = pass.tape().tensor({count}, DType::i32);
  const std::int64_t words = parameters_.shape(weight_)[0];
  const std::int64_t block = std::max<std::int64_t>(1, kLogits / words);
  Arena arena(hidden.device());
  Tape tape(arena, false);
  for (std::int64_t first = 0; first < count; first += block) {
    const std::int64_t size = std::min(block, count - first);
    choose_tokens(logits(Pass(tape), tape.constant(rows.slice(first, size))), {.greedy = true}, {},
                  chosen.slice(first, size));
    tape.clear();
    arena.reset();
  }
  return shape.rank() == 3 ? chosen.reshaped({shape[0], shape[1]}) : chosen;
}

}  // namespace carousel
