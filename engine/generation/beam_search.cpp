#include "engine/generation/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/combine/combine.h"
#include "kernels/common/check.h"
#include "kernels/copy/copy.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/sample/sample.h"
#include "kernels/top_k/top_k.h"

namespace carousel {
namespace {

/// Of a state that grows with the text, the entries in use alone.
State in_use(State state, std::int64_t entries) {
  for (StateTensor& tensor : state.tensors) {
    if (tensor.growth_axis == 0) tensor.value = tensor.value.slice(0, entries);
  }
  return state;
}

Tensor as_float(Tape& tape, const Tensor& logits) {
  if (logits.dtype() == DType::f32) return logits;
  const Tensor result = tape.tensor(logits.shape(), DType::f32);
  run(tape.device(),
      Cast<bf16, float>{.from = logits.view<bf16, 1>(), .to = result.mutable_view<float, 1>()});
  return result;
}

template <class T>
std::vector<T> on_host(const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.size()));
  copy_to_host(tensor, values.data());
  return values;
}

}  // namespace

BeamSearch::BeamSearch(Translator& translator, const Device& device, const Tokens& tokens,
                       BeamOptions options)
    : translator_(translator),
      options_(std::move(options)),
      tokens_(tokens),
      device_(device),
      arena_(device),
      tape_(arena_, false) {
  options_.check();
  if (translator.attends()) return;
  const char* const what = options_.aligned                 ? "alignments are"
                           : options_.coverage_penalty != 0 ? "a coverage penalty is"
                                                            : nullptr;
  if (what == nullptr) return;
  throw ConfigError(std::string("beam search: ") + what +
                    " of attention, which this model has not");
}

void BeamSearch::clear() {
  tape_.clear();
  arena_.reset();
}

State BeamSearch::encode(std::span<const std::vector<std::int32_t>> sources, std::int64_t steps) {
  std::size_t longest = 0;
  std::vector<std::int32_t> lengths;
  for (const auto& source : sources) {
    if (source.empty()) {
      throw ShapeError("beam search: a source has 0 tokens, expected at least 1");
    }
    longest = std::max(longest, source.size());
    lengths.push_back(static_cast<std::int32_t>(source.size()));
  }
  std::vector<std::int32_t> ids(longest * sources.size(), 0);
  for (std::size_t b = 0; b < sources.size(); ++b) {
    for (std::size_t s = 0; s < sources[b].size(); ++s) ids[s * sources.size() + b] = sources[b][s];
  }
  const std::int64_t B = std::ssize(sources);
  const Field source{.name = "source",
                     .values = Tensor(device_, {static_cast<std::int64_t>(longest), B}, DType::i32),
                     .lengths = Tensor(device_, {B}, DType::i32)};
  copy_from_host(source.values, ids.data());
  copy_from_host(source.lengths, lengths.data());
  clear();
  Pass pass(tape_);
  State state = translator_.encode(pass, source, {.beam = options_.beam, .steps = steps});
  pass.finish();
  return state;
}

BeamSearch::Likeliest BeamSearch::likeliest(const Tensor& logits) {
  const std::int64_t rows = logits.shape().rows(), kept = options_.beam + 1;
  const Tensor all = as_float(tape_, logits);
  const Tensor index = tape_.tensor({rows, kept}, DType::i32),
               score = tape_.tensor({rows, kept}, DType::f32);
  run(device_, TopK<float>{.excluded = excluded_.view<std::int32_t, 2>(),
                           .all = all.mutable_view<float, 2>(),
                           .index = index.mutable_view<std::int32_t, 2>(),
                           .score = score.mutable_view<float, 2>()});
  const Tensor target = tape_.tensor({rows}, DType::i32), loss = tape_.tensor({rows}, DType::f32),
               log_sums = tape_.tensor({rows}, DType::f32);
  run(device_,
      Fill<std::int32_t>{.to = target.mutable_view<std::int32_t, 1>(), .value = kIgnoreTarget});
  run(device_, CrossEntropyForward<float>{.logits = all.view<float, 2>(),
                                          .target = target.view<std::int32_t, 1>(),
                                          .loss = loss.mutable_view<float, 1>(),
                                          .lse = log_sums.mutable_view<float, 1>()});
  // The place where the host waits for a step.
  return {on_host<std::int32_t>(index), on_host<float>(score), on_host<float>(log_sums)};
}

Tensor BeamSearch::without_suppressed(const Tensor& logits) {
  if (options_.suppressed.empty()) return logits;
  const std::int64_t rows = logits.shape().rows(), V = logits.shape().back();
  if (!mask_ || mask_.shape() != Shape{rows, V}) {
    std::vector<float> mask(static_cast<std::size_t>(rows * V), 0.0F);
    for (const std::int32_t id : options_.suppressed) {
      for (std::int64_t row = 0; row < rows && id >= 0 && id < V; ++row) {
        mask[static_cast<std::size_t>(row * V + id)] = -std::numeric_limits<float>::infinity();
      }
    }
    mask_ = Tensor(device_, {rows, V}, DType::f32);
    copy_from_host(mask_, mask.data());
  }
  const Tensor result = tape_.tensor(logits.shape(), DType::f32);
  run(device_, Add<float>{.a = logits.view<float, 1>(),
                          .b = mask_.view<float, 1>(),
                          .y = result.mutable_view<float, 1>()});
  return result;
}

BeamSearch::Likeliest BeamSearch::drawn(const Tensor& logits, std::int64_t step) {
  const Tensor all = as_float(tape_, logits), open = without_suppressed(all);
  const std::int64_t rows = all.shape().rows(), V = all.shape().back();
  const Tensor at_step = tape_.tensor({1}, DType::i64), token = tape_.tensor({rows}, DType::i32),
               loss = tape_.tensor({rows}, DType::f32), log_sums = tape_.tensor({rows}, DType::f32);
  copy_from_host(at_step, &step);
  const SamplingConfig& how = *options_.sampling;
  for (std::int64_t row = 0; row < rows; ++row) {
    run(device_, Sample<float>{.logits = open.reshaped({rows, V}).slice(row, 1).view<float, 2>(),
                               .temperature = static_cast<float>(how.temperature),
                               .top_k = how.top_k,
                               .top_p = static_cast<float>(how.top_p),
                               .greedy = how.greedy,
                               .random = {.seed = how.seed,
                                          .stream = streams_[static_cast<std::size_t>(row)],
                                          .step = at_step.view<std::int64_t, 1>()},
                               .token = token.slice(row, 1).mutable_view<std::int32_t, 1>()});
  }
  run(device_, CrossEntropyForward<float>{.logits = all.view<float, 2>(),
                                          .target = token.view<std::int32_t, 1>(),
                                          .loss = loss.mutable_view<float, 1>(),
                                          .lse = log_sums.mutable_view<float, 1>()});
  // The place where the host waits for a step.
  const std::vector<std::int32_t> chosen = on_host<std::int32_t>(token);
  const std::vector<float> nats = on_host<float>(loss);
  Likeliest result{.token = {}, .logit = {}, .log_sums = on_host<float>(log_sums)};
  for (std::size_t row = 0; row < chosen.size(); ++row) {
    result.token.insert(result.token.end(), {chosen[row], -1});
    result.logit.insert(result.logit.end(), {result.log_sums[row] - nats[row], 0.0F});
  }
  return result;
}

std::vector<Beam::Extension> BeamSearch::candidates(const Beam& beam, std::size_t source,
                                                    const Likeliest& likeliest) const {
  const std::size_t kept = static_cast<std::size_t>(options_.beam) + 1;
  std::vector<Beam::Extension> result;
  for (std::size_t k = 0; k < beam.rows().size(); ++k) {
    const std::size_t row = k * static_cast<std::size_t>(sources_) + source;
    const double before = beam.rows()[k].log_probability,
                 log_sum = static_cast<double>(likeliest.log_sums[row]);
    if (!std::isfinite(log_sum)) {
      throw Error("beam search: the model's logits are not finite numbers");
    }
    for (std::size_t i = row * kept; i < (row + 1) * kept; ++i) {
      if (likeliest.token[i] < 0) break;
      result.push_back(
          {.row = static_cast<std::int32_t>(k),
           .token = likeliest.token[i],
           .log_probability = before + static_cast<double>(likeliest.logit[i]) - log_sum});
    }
  }
  return result;
}

bool BeamSearch::place(const std::vector<Beam>& beams) {
  const auto B = static_cast<std::int32_t>(sources_);
  std::iota(row_.begin(), row_.end(), 0);
  bool moved = false;
  for (std::int32_t b = 0; b < B; ++b) {
    const Beam& beam = beams[static_cast<std::size_t>(b)];
    if (beam.is_over()) continue;
    for (std::size_t k = 0; k < beam.rows().size(); ++k) {
      const std::size_t at = k * static_cast<std::size_t>(B) + static_cast<std::size_t>(b);
      token_[at] = beam.rows()[k].token;
      const std::int32_t from = beam.rows()[k].row * B + b;
      moved = moved || row_[at] != from;
      row_[at] = from;
    }
  }
  return moved;
}

void BeamSearch::extend(std::vector<Beam>& beams,
                        std::span<const std::vector<std::int32_t>> sources,
                        const Likeliest& likeliest, const Tensor& alignment) const {
  const std::vector<float> weights = weighs() ? host_floats(alignment) : std::vector<float>{};
  const std::int64_t steps = weighs() ? alignment.shape().back() : 0;
  for (std::size_t b = 0; b < beams.size(); ++b) {
    if (beams[b].is_over()) continue;
    std::vector<float> own;
    for (std::int64_t k = 0; weighs() && k < std::ssize(beams[b].rows()); ++k) {
      const auto row = k * sources_ + static_cast<std::int64_t>(b);
      const auto first = weights.begin() + row * steps;
      own.insert(own.end(), first, first + std::ssize(sources[b]));
    }
    beams[b].extend(candidates(beams[b], b, likeliest), std::move(own));
  }
}

void BeamSearch::begin(std::int64_t rows) {
  token_.assign(static_cast<std::size_t>(rows), tokens_.begin);
  row_.assign(static_cast<std::size_t>(rows), 0);
  excluded_ = {};
  if (options_.suppressed.empty()) return;
  std::vector<std::int32_t> all;
  for (std::int64_t row = 0; row < rows; ++row) {
    all.insert(all.end(), options_.suppressed.begin(), options_.suppressed.end());
  }
  excluded_ = Tensor(device_, {rows, std::ssize(options_.suppressed)}, DType::i32);
  copy_from_host(excluded_, all.data());
}

std::vector<std::vector<Hypothesis>> BeamSearch::search(
    std::span<const std::vector<std::int32_t>> sources, std::span<const std::uint64_t> streams) {
  if (sources.empty()) return {};
  sources_ = std::ssize(sources);
  streams_.assign(streams.begin(), streams.end());
  for (std::size_t b = streams_.size(); b < sources.size(); ++b) streams_.push_back(b);
  std::vector<Beam> beams;
  std::int64_t longest = 0;
  for (const auto& source : sources) {
    beams.emplace_back(options_, tokens_.end, std::ssize(source));
    longest = std::max(longest, options_.longest(std::ssize(source)));
  }
  const std::int64_t rows = options_.beam * sources_;
  begin(rows);
  const State state = encode(sources, longest);
  const Tensor token(device_, {1, rows}, DType::i32), row(device_, {rows}, DType::i32);
  for (std::int64_t steps = 1;; ++steps) {
    copy_from_host(token, token_.data());
    clear();
    Pass pass(tape_);
    const Translator::Step step = translator_.step(pass, token, state, weighs());
    pass.finish();
    const Likeliest next = options_.sampling ? drawn(step.logits, steps) : likeliest(step.logits);
    extend(beams, sources, next, step.alignment);
    if (std::all_of(beams.begin(), beams.end(), [](const Beam& b) { return b.is_over(); })) break;
    if (place(beams)) {
      copy_from_host(row, row_.data());
      in_use(state, steps).gather(row);
    }
  }
  std::vector<std::vector<Hypothesis>> result;
  for (const Beam& beam : beams) result.push_back(beam.finished());
  return result;
}

}  // namespace carousel
