#include "models/word_vectors.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "kernels/binary_choices/binary_choices.h"
#include "kernels/common/alias_table.h"
#include "kernels/hierarchical_softmax/hierarchical_softmax.h"
#include "kernels/word_windows/word_windows.h"

namespace carousel {
namespace {

// Places of random numbers.
constexpr std::uint64_t kWindows = 0, kNoise = 1;

template <class T>
Tensor on_device(const Device& device, std::span<const T> values) {
  const Tensor result(device, {std::ssize(values)}, dtype_of<T>());
  copy_from_host(result, values.data());
  return result;
}

/// How probably each word is kept: certainly, where a training text has none of it.
std::vector<float> keep_probabilities(const std::vector<std::int64_t>& counts, double subsample) {
  double total = 0;
  for (const std::int64_t count : counts) total += static_cast<double>(count);
  std::vector<float> keep(counts.size(), 1.0F);
  for (std::size_t v = 0; v < counts.size() && subsample > 0; ++v) {
    if (counts[v] == 0) continue;
    const double ratio = subsample * total / static_cast<double>(counts[v]);
    keep[v] = static_cast<float>(std::min(1.0, std::sqrt(ratio) + ratio));
  }
  return keep;
}

}  // namespace

void WordVectorsConfig::describe(OptionSection& section) {
  const std::string sampled = "negative_sampling";
  section.add("embed", embed, "width of the vectors", {1, kMostBinaryChoiceColumns});
  section.add("embed_range", embed_range, "vectors begin uniform within ± this; 0: 0.5 / embed",
              {.least = 0});
  section.add("window", window, "words of the context to either side, at most: drawn from 1 on",
              {1, 4096});
  section.add("subsample", subsample,
              "a word with a larger share of the text than this is left out at times; 0: never",
              {.least = 0});
  section.add("output", output, "how a word is predicted",
              {sampled, "hierarchical_softmax", "softmax"});
  section.add("negatives", negatives, "words of noise for each word", {1, 1024})
      .of(output, {sampled});
  section
      .add("share_negatives", share_negatives,
           "neighbouring predictions that share their words of noise: as many for all of them as "
           "for one",
           {1, 1024})
      .of(output, {sampled});
  section
      .add("noise_power", noise_power,
           "a word of noise is drawn in proportion to its count to this", {.least = 0, .most = 1})
      .of(output, {sampled});
  section
      .add("gradient", gradient,
           "of a step: the sum over its words, so that a learning rate is that of one, or their "
           "mean",
           {"sum", "mean"})
      .of(output, {sampled, "hierarchical_softmax"});
  section.add("hidden", hidden, "units of a linear layer before the output; 0: none",
              {0, kMostBinaryChoiceColumns});
  section
      .add("label_smoothing", label_smoothing, "share of the target spread evenly",
           {.least = 0, .most = 1, .below_most = true})
      .of(output, {"softmax"});
}

WordVectors::WordVectors(Kind kind, const WordVectorsConfig& config, const Device& device,
                         DType compute, const Beginning& beginning)
    : kind_(kind), config_(config), device_(device) {
  declare();
  parameters_.materialize(device, compute, beginning);
  count_words();
}

void WordVectors::declare() {
  using Begin = Initializer::Kind;
  const std::int64_t V = config_.vocabulary(), E = config_.embed;
  const double range = config_.embed_range > 0 ? config_.embed_range : 0.5 / static_cast<double>(E);
  const std::int64_t width = config_.hidden > 0 ? config_.hidden : E;
  const auto bias_of = [](std::int64_t fan_in) {
    return Initializer{.kind = Begin::uniform, .scale = 1 / std::sqrt(static_cast<double>(fan_in))};
  };
  const Initializer matrix{.kind = Begin::fan_in, .scale = 1};
  embedding_ = parameters_.declare("embedding.weight", {V, E},
                                   {.kind = Begin::uniform, .scale = range}, {.row_sparse = true});
  if (config_.hidden > 0) {
    hidden_weight_ = parameters_.declare("hidden.weight", {width, E}, matrix);
    hidden_bias_ = parameters_.declare("hidden.bias", {width}, bias_of(E));
  }
  if (config_.output == "softmax") {
    output_ = parameters_.declare("output.weight", {V, width}, matrix);
    output_bias_ = parameters_.declare("output.bias", {V}, bias_of(width));
  } else if (config_.output == "hierarchical_softmax") {
    output_ = parameters_.declare("nodes.weight", {V - 1, width}, {}, {.row_sparse = true});
  } else {
    output_ = parameters_.declare("output.weight", {V, width}, {}, {.row_sparse = true});
  }
}

void WordVectors::count_words() {
  std::vector<std::int64_t> counts = config_.counts;
  for (const std::int32_t id : config_.special) counts[static_cast<std::size_t>(id)] = 0;
  std::vector<float> keep = keep_probabilities(counts, config_.subsample);
  for (const std::int32_t id : config_.special) keep[static_cast<std::size_t>(id)] = 0;
  keep_ = on_device<float>(device_, keep);
  const std::int64_t zero = 0;
  first_step_ = Tensor(device_, {1}, DType::i64);
  copy_from_host(first_step_, &zero);
  if (config_.output == "negative_sampling") {
    std::vector<double> weights;
    for (const std::int64_t count : counts) {
      weights.push_back(count == 0 ? 0 : std::pow(static_cast<double>(count), config_.noise_power));
    }
    noise_ = {.columns = on_device<std::int64_t>(device_, alias_columns(weights)),
              .words = config_.negatives};
  } else if (config_.output == "hierarchical_softmax") {
    const HuffmanTree tree(counts);
    tree_ = {.start = on_device<std::int32_t>(device_, tree.start),
             .node = on_device<std::int32_t>(device_, tree.node),
             .turn = on_device<std::int32_t>(device_, tree.turn),
             .depth = tree.depth};
  }
}

WordVectors::Windows WordVectors::windows(const Pass& pass, const Batch& batch) const {
  Tape& tape = pass.tape();
  const Tensor& token = batch["token"];
  const std::int64_t steps = token.shape()[0], rows = token.shape()[1];
  const Shape slots{steps, rows, 2 * config_.window};
  const Tensor context = tape.tensor(slots, DType::i32);
  const Tensor center = tape.tensor(token.shape(), DType::i32);
  const Tensor reached = tape.tensor(token.shape(), DType::i32);
  const Tensor near = kind_ == Kind::skipgram ? tape.tensor(slots, DType::i32) : Tensor{};
  run(device_, WordWindows{.token = token.view<std::int32_t, 2>(),
                           .inside = batch["target"].view<std::int32_t, 2>(),
                           .reset = batch.reset.view<std::int32_t, 2>(),
                           .keep = keep_.view<float, 1>(),
                           .width = config_.window,
                           .source = pass.training() ? pass.random(kWindows) : RandomSource{},
                           .reached = reached.mutable_view<std::int32_t, 2>(),
                           .context = context.mutable_view<std::int32_t, 3>(),
                           .center = center.mutable_view<std::int32_t, 2>(),
                           .near = near.mutable_view<std::int32_t, 3>()});
  return {.context = context, .target = kind_ == Kind::skipgram ? near : center};
}

NoiseWords WordVectors::noise(const Pass& pass) const {
  NoiseWords noise = noise_;
  noise.sharing = config_.share_negatives;
  noise.source = pass.random(kNoise);
  if (!noise.source.step.present()) noise.source.step = first_step_.view<std::int64_t, 1>();
  return noise;
}

Loss WordVectors::loss(const Pass& pass, Var h, const Tensor& target) {
  Tape& tape = pass.tape();
  const Tape::Layer layer(tape, "output");
  const Var weight = parameters_.on(tape, output_);
  const Tensor denominator = pass.partial() ? pass.denominator() : Tensor{};
  if (config_.output == "softmax") {
    const double smoothing = pass.training() ? config_.label_smoothing : 0;
    return linear_cross_entropy(
        h, weight, parameters_.on(tape, output_bias_), target,
        {.label_smoothing = static_cast<float>(smoothing), .denominator = denominator});
  }
  const ChoiceOptions options{.gradients_of_sum = config_.gradient == "sum",
                              .denominator = denominator};
  if (config_.output == "hierarchical_softmax") {
    return hierarchical_softmax(h, weight, target, tree_, options);
  }
  return negative_sampling(h, weight, target, noise(pass), options);
}

Objective WordVectors::objective(Pass& pass, const Batch& batch, const State&) {
  Tape& tape = pass.tape();
  const Windows all = windows(pass, batch);
  Var h = [&] {
    const Tape::Layer layer(tape, "embedding");
    const Var weight = parameters_.on(tape, embedding_);
    return kind_ == Kind::cbow ? embedding_mean(weight, all.context)
                               : embedding(weight, all.context);
  }();
  if (config_.hidden > 0) {
    const Tape::Layer layer(tape, "hidden");
    h = linear(h, parameters_.on(tape, hidden_weight_), parameters_.on(tape, hidden_bias_));
  }
  return {.terms = {{"loss", loss(pass, h, all.target)}}};
}

Tensor WordVectors::hidden(Pass& pass, const Batch& batch, const State&) {
  return embedding(parameters_.on(pass.tape(), embedding_), batch["token"]).value();
}

}  // namespace carousel
