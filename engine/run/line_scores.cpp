#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/run/trained_model.h"
#include "kernels/common/check.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace carousel {

std::int64_t LineScore::counted() const {
  return std::count_if(tokens.begin(), tokens.end(), [](const auto& t) { return t.has_value(); });
}

double LineScore::log_probability() const {
  double sum = 0;
  for (const std::optional<double>& token : tokens) sum += token.value_or(0);
  return sum;
}

double LineScore::perplexity() const {
  return std::exp(-log_probability() / static_cast<double>(counted()));
}

void TrainedModel::forward_lines(const PackedLines& lines, const TakeBatch& take) {
  Corpus marks;
  config_.data->mark(marks, vocabularies_, "the run's text");
  const auto batches =
      packed_batches(device_, tokens_in_memory(lines.tokens), tokens_in_memory(lines.lengths),
                     {.rows = lines.rows,
                      .steps = lines.steps,
                      .document_end = marks.document_end,
                      .answer_after = marks.answer_after,
                      .whole = lines.whole});
  Arena arena(device_);
  forward_epoch(*model_, *batches, arena, take);
}

std::vector<LineScore> TrainedModel::score(std::span<const LineIds> lines) {
  if (!config_.entry->scores) {
    throw ConfigError(fmt::format("score: model.kind = {} does not score", config_.kind));
  }
  std::vector<LineScore> scores(lines.size());
  Embedder* const embedder = model_->embedder();
  const bool whole = embedder != nullptr && embedder->reads_whole_lines();
  for (const PackedLines& packed : packed_lines(lines, whole)) {
    std::vector<std::optional<double>> tokens(packed.tokens.size());
    forward_lines(packed, [&](Pass& pass, const Batch& batch, const State& state) {
      const Objective objective = model_->objective(pass, batch, state);
      const std::vector<float> loss = host_floats(objective.terms.front().loss.rows.value());
      std::vector<std::int32_t> target(loss.size());
      std::vector<std::int64_t> place(loss.size());
      copy_to_host(batch["target"], target.data());
      copy_to_host(batch["place"], place.data());
      for (std::size_t i = 0; i < loss.size(); ++i) {
        if (target[i] == kIgnoreTarget) continue;
        tokens[static_cast<std::size_t>(place[i]) + 1] = -static_cast<double>(loss[i]);
      }
    });
    auto first = tokens.begin();
    for (const std::size_t number : packed.numbers) {
      const auto end = first + std::ssize(lines[number]);
      scores[number].tokens.assign(first, end);
      first = end;
    }
  }
  return scores;
}

}  // namespace carousel
