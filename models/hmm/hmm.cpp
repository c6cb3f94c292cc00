#include "models/hmm/hmm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "kernels/common/check.h"
#include "kernels/common/random.h"
#include "models/hmm/baum_welch.h"
#include "models/hmm/forward_backward.h"
#include "models/hmm/keyboard.h"
#include "models/token_by_token.h"

namespace carousel {
namespace {

constexpr double kNoLoss = std::numeric_limits<double>::infinity();

/// Row b of a state, to be read on and written back.
class Filter {
 public:
  Filter(const Tensor& rows, std::int64_t b, const Hmm& model)
      : row_(cpu_values<double>(rows.slice(b, 1))), model_(model), predicted_(row_.size()) {}

  void restart() {
    std::fill(row_.begin(), row_.end(), 0.0);
    is_predicted_ = false;
  }
  void read(std::int32_t token) {
    if (token == model_.boundary()) return restart();
    const std::span<const double> before = predicted();
    std::copy(before.begin(), before.end(), row_.begin());
    observe(model_.probabilities(), token, row_);
    is_predicted_ = false;
  }
  double nats(std::int32_t target) { return -std::log(probability(target)); }
  double probability(std::int32_t token) {
    const std::span<const double> state = predicted();
    const std::span<const double> emission = model_.probabilities().emission_of(token);
    for (std::size_t i = 0; i < state.size(); ++i) product_[i] = state[i] * emission[i];
    return lane_sum(product_);
  }

 private:
  std::span<const double> predicted() {
    if (!is_predicted_) predict_state(model_.probabilities(), row_, predicted_);
    is_predicted_ = true;
    return predicted_;
  }

  std::span<double> row_;
  const Hmm& model_;
  std::vector<double> predicted_, product_ = std::vector<double>(predicted_.size());
  bool is_predicted_ = false;
};

/// A table of rows without what fills them up.
Tensor stored(std::span<const double> values, Shape shape, std::int64_t width) {
  const Tensor tensor(Cpu{}, shape, DType::f64);
  const auto to = cpu_values<double>(tensor);
  for (std::size_t i = 0; i < to.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / shape.back();
    to[i] =
        values[static_cast<std::size_t>(row * width) + i % static_cast<std::size_t>(shape.back())];
  }
  return tensor;
}

void restore(const Tensor& tensor, std::span<double> values, std::int64_t width) {
  const auto from = cpu_values<double>(tensor);
  const std::int64_t columns = tensor.shape().back();
  for (std::size_t i = 0; i < from.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / columns;
    values[static_cast<std::size_t>(row * width) + i % static_cast<std::size_t>(columns)] = from[i];
  }
}

/// FormatError unless n numbers at a distance are a distribution.
void expect_distribution(const SafetensorsFile& file, const char* name,
                         std::span<const double> values, std::int64_t n, std::int64_t distance) {
  double sum = 0;
  bool are_shares = true;
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = values[static_cast<std::size_t>(i * distance)];
    are_shares = are_shares && value >= 0;
    sum += value;
  }
  if (are_shares && std::abs(sum - 1) < 1e-6) return;
  throw FormatError(fmt::format("{}: '{}' is damaged, expected probabilities that sum to 1",
                                file.path().string(), name));
}

}  // namespace

void HmmConfig::describe(OptionSection& section) {
  section.add("emission", emission,
              "learnt from the text; or keyboard: states are the tokens that were meant, and keys "
              "beside theirs are hit by mistake",
              {{"learnt", Emission::learnt}, {"keyboard", Emission::keyboard}});
  section
      .add("typo_probability", typo_probability, "keyboard: with which a key beside is hit",
           {.least = 0, .most = 1, .below_most = true})
      .when([this] { return emission == Emission::keyboard; }, "model.emission is learnt");
  const auto learns = [this] { return emission == Emission::learnt; };
  const std::string otherwise = "model.emission is keyboard, whose tables are counted";
  section.add("states", states, "hidden states", {1, kMostStates}).when(learns, otherwise);
  section.add("iterations", iterations, "of Baum-Welch, at most", {1, 1 << 20})
      .may_change()
      .when(learns, otherwise);
  section
      .add("tolerance", tolerance,
           "Baum-Welch ends when an iteration gains less than this, in nats per token",
           {.least = 0})
      .may_change()
      .when(learns, otherwise);
  section.add("smoothing", smoothing,
              "added to the expected number of each start, transition and token", {.least = 0});
  section
      .add("block", block, "tokens; in the fit, a stream is cut into sequences of so many",
           {2, std::int64_t{1} << 40})
      .when(learns, otherwise);
}

Hmm::Hmm(const HmmConfig& config, const Device& device, DType, const Beginning& beginning)
    : config_(config),
      seed_(beginning.seed),
      probabilities_(config.states, config.vocabulary),
      losses_{kNoLoss, kNoLoss} {
  if (!is_cpu(device)) throw ConfigError("model.kind = hmm runs on the CPU alone");
}

State Hmm::initial_state(std::int64_t batch) const {
  State state{
      {{.name = "filter", .value = Tensor(Cpu{}, {batch, probabilities_.width}, DType::f64)}}};
  state.reset();
  return state;
}

Objective Hmm::objective(Pass& pass, const Batch& batch, const State& state) {
  const Tensor filters = carried_copy(pass, state.at("filter").value);
  return objective_token_by_token(pass, batch,
                                  [&](std::int64_t b) { return Filter(filters, b, *this); });
}

Tensor Hmm::logits(Pass& pass, const Field& token, const State& state) {
  const std::int64_t rows = token.values.shape()[1];
  const Tensor logits = pass.tape().tensor({rows, config_.vocabulary}, DType::f32);
  const Tensor filters = carried_copy(pass, state.at("filter").value);
  for (std::int64_t b = 0; b < rows; ++b) {
    Filter filter(filters, b, *this);
    read_row(token, b, filter);
    const auto of_row = cpu_values<float>(logits.slice(b, 1));
    for (std::int32_t x = 0; x < config_.vocabulary; ++x) {
      of_row[static_cast<std::size_t>(x)] = static_cast<float>(std::log(filter.probability(x)));
    }
  }
  return logits;
}

/// Distributions drawn evenly from all there are, but that tokens are as often as in the text. States
/// that differ less take many iterations to part, each of which gains next to nothing.
void Hmm::begin_randomly(const Corpus& corpus) {
  const RandomSource random{.seed = seed_, .stream = 0, .step = {}};
  auto draw = [&, i = std::uint64_t{0}]() mutable {
    return -std::log(static_cast<double>(uniform(random.words(i++, 0)[0])) + 0x1p-25);  // never 0
  };
  HmmCounts counts(probabilities_);
  std::fill(probabilities_.transition.begin(), probabilities_.transition.end(), 1.0);
  const std::int64_t states = config_.states, width = probabilities_.width;
  const std::vector<std::int64_t> seen = token_counts(corpus.train["token"], config_.vocabulary);
  for (std::int64_t i = 0; i < states; ++i) {
    counts.start[static_cast<std::size_t>(i)] = draw();
    for (std::int64_t j = 0; j < states; ++j) {
      counts.transition[static_cast<std::size_t>(i * width + j)] = draw();
    }
    for (std::int64_t x = 0; x < config_.vocabulary; ++x) {
      if (x == config_.begin) continue;
      counts.emission[static_cast<std::size_t>(x * width + i)] =
          draw() * (static_cast<double>(seen[static_cast<std::size_t>(x)]) + config_.smoothing);
    }
  }
  probabilities_ = reestimated(probabilities_, counts, 0, config_.begin);
}

void Hmm::count_typist(const Corpus& corpus) {
  const TokenRange& text = corpus.train["token"];
  const std::vector<std::int64_t> bigrams = count_bigrams(text, config_.vocabulary);
  // A sequence begins with what follows a boundary, or else the end of a line, or with any token.
  const std::int32_t before = boundary_ >= 0 ? boundary_ : config_.line_end;
  std::vector<std::int64_t> starts = token_counts(text, config_.vocabulary);
  if (before >= 0) {
    std::copy_n(bigrams.begin() + before * config_.vocabulary, config_.vocabulary, starts.begin());
  }
  const Typist typist{.texts = config_.texts,
                      .typo_probability = config_.typo_probability,
                      .smoothing = config_.smoothing,
                      .never = config_.begin,
                      .unknown = config_.unknown};
  probabilities_ = typist.tables(starts, bigrams);
}

bool Hmm::fit(const Fit& fit) {
  boundary_ = fit.corpus.lines ? config_.begin : fit.corpus.document_end;
  if (states_are_tokens()) {
    count_typist(fit.corpus);
    return true;
  }
  if (fit.taken == 0) begin_randomly(fit.corpus);
  const std::vector<TextSequence> sequences =
      training_sequences(fit.corpus, boundary_, config_.block);
  for (std::int64_t iteration = fit.taken; !is_over(iteration);) {
    const std::optional<HmmCounts> counts = expected_counts(probabilities_, fit, sequences);
    if (!counts) return iteration > 0;
    const double loss = -counts->log_probability / static_cast<double>(counts->tokens);
    probabilities_ = reestimated(probabilities_, *counts, config_.smoothing, config_.begin);
    losses_[1] = losses_[0];
    losses_[0] = loss;
    fit.iterated(++iteration, loss);
  }
  return true;
}

bool Hmm::is_over(std::int64_t iterations) const {
  if (states_are_tokens()) return iterations > 0;
  return iterations >= config_.iterations ||
         (iterations > 1 && losses_[1] - losses_[0] < config_.tolerance);
}

std::vector<NamedTensor> Hmm::tables() const {
  const std::int64_t states = config_.states, width = probabilities_.width;
  const Tensor boundary(Cpu{}, {1}, DType::i32), losses(Cpu{}, {2}, DType::f64);
  copy_from_host(boundary, &boundary_);
  copy_from_host(losses, losses_);
  return {{"boundary", boundary},
          {"losses", losses},
          {"start", stored(probabilities_.start, {states}, width)},
          {"transition", stored(probabilities_.transition, {states, states}, width)},
          {"emission", stored(probabilities_.emission, {config_.vocabulary, states}, width)}};
}

void Hmm::load(const SafetensorsFile& file) {
  const std::int64_t states = config_.states, width = probabilities_.width;
  const auto read = [&](const char* name, Shape shape, DType dtype) {
    file.expect_shape(name, shape);
    const Tensor tensor(Cpu{}, shape, dtype);
    file.read_into(name, tensor);
    return tensor;
  };
  boundary_ = cpu_values<std::int32_t>(read("boundary", {1}, DType::i32))[0];
  if (boundary_ < -1 || boundary_ >= config_.vocabulary) {
    throw FormatError(
        fmt::format("{}: 'boundary' is damaged, expected a token or -1", file.path().string()));
  }
  const Tensor losses = read("losses", {2}, DType::f64);
  std::copy_n(cpu_values<double>(losses).begin(), 2, losses_);
  if (std::isnan(losses_[0]) || std::isnan(losses_[1])) {
    throw FormatError(
        fmt::format("{}: 'losses' is damaged, expected numbers", file.path().string()));
  }
  restore(read("start", {states}, DType::f64), probabilities_.start, width);
  restore(read("transition", {states, states}, DType::f64), probabilities_.transition, width);
  restore(read("emission", {config_.vocabulary, states}, DType::f64), probabilities_.emission,
          width);
  expect_distribution(file, "start", probabilities_.start, states, 1);
  for (std::int64_t i = 0; i < states; ++i) {
    expect_distribution(file, "transition", probabilities_.transition_from(i), states, 1);
    expect_distribution(file, "emission",
                        std::span(probabilities_.emission).subspan(static_cast<std::size_t>(i)),
                        config_.vocabulary, width);
  }
}

std::string Hmm::summary() const {
  return fmt::format("{} states of {} tokens", config_.states, config_.vocabulary);
}

std::vector<TrackedStates> Hmm::track(std::span<const std::vector<std::int32_t>> sequences,
                                      StateQuestion question) const {
  std::vector<TrackedStates> answers(sequences.size());
  const auto states = static_cast<std::ptrdiff_t>(config_.states);
  std::optional<Viterbi> viterbi;
  if (question == StateQuestion::path) viterbi.emplace(probabilities_);
#pragma omp parallel
  {
    std::optional<ForwardBackward> passes;
    if (!viterbi) passes.emplace(probabilities_);
#pragma omp for schedule(dynamic, 16)
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const std::vector<std::int32_t>& tokens = sequences[i];
      TrackedStates& answer = answers[i];
      answer.states.resize(tokens.size());
      if (viterbi) {
        answer.log_probability = viterbi->path(tokens, answer.states);
        continue;
      }
      answer.log_probability = passes->forward(tokens);
      if (question == StateQuestion::smooth) passes->backward();
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        const auto all =
            question == StateQuestion::smooth ? passes->smoothed(t) : passes->filtered(t);
        answer.probabilities.insert(answer.probabilities.end(), all.begin(), all.begin() + states);
        answer.states[t] = static_cast<std::int32_t>(
            std::max_element(all.begin(), all.begin() + states) - all.begin());
      }
    }
  }
  return answers;
}

}  // namespace carousel
