#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/run/trained_model.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// What a token is in its line.
struct LineStep {
  std::size_t line;  ///< its number
  std::int64_t step;
};

/// Of all tokens of packed lines.
std::vector<LineStep> line_steps(const PackedLines& lines) {
  std::vector<LineStep> result;
  for (std::size_t i = 0; i < lines.numbers.size(); ++i) {
    for (std::int64_t step = 0; step < lines.lengths[i]; ++step) {
      result.push_back({.line = lines.numbers[i], .step = step});
    }
  }
  return result;
}

/// Puts hidden states of steps together to what is wanted of lines.
class Collector {
 public:
  Collector(std::span<const LineIds> lines, Embedder::Units units, LineEmbedding which)
      : units_(units), which_(which) {
    std::int64_t row = 0;
    for (const LineIds& line : lines) {
      first_row_.push_back(row);
      row += which == LineEmbedding::all ? std::ssize(line) : 1;
      result_.steps.push_back(static_cast<std::int32_t>(line.size()));
    }
    result_.rows.assign(static_cast<std::size_t>(row * units.all()), 0);
    if (which == LineEmbedding::mean) sums_.assign(result_.rows.size(), 0);
  }

  /// The hidden state of a step. The steps of a line come in their order.
  void add(std::size_t line, std::int64_t step, const float* hidden) {
    const std::int64_t units = units_.all(), last = result_.steps[line] - 1;
    const bool all = which_ == LineEmbedding::all;
    const auto at = (first_row_[line] + (all ? step : 0)) * units;
    float* const row = result_.rows.data() + at;
    if (all) {
      std::copy_n(hidden, units, row);
    } else if (which_ == LineEmbedding::last) {
      if (step == last) std::copy_n(hidden, units_.forward, row);
      if (step == 0) std::copy(hidden + units_.forward, hidden + units, row + units_.forward);
    } else {
      double* const sum = sums_.data() + at;
      for (std::int64_t i = 0; i < units; ++i) sum[i] += static_cast<double>(hidden[i]);
      if (step < last) return;
      const auto steps = static_cast<double>(last + 1);
      for (std::int64_t i = 0; i < units; ++i) row[i] = static_cast<float>(sum[i] / steps);
    }
  }
  LineEmbeddings result() && { return std::move(result_); }

 private:
  Embedder::Units units_;
  LineEmbedding which_;
  std::vector<std::int64_t> first_row_;  ///< of each line
  LineEmbeddings result_;
  std::vector<double> sums_;
};

}  // namespace

Embedder& TrainedModel::embedder() const {
  if (Embedder* const embedder = model_->embedder()) return *embedder;
  throw ConfigError(fmt::format("embed: model.kind = {} does not embed", config_.kind));
}

LineEncoder::End TrainedModel::line_end() const {
  const bool as_examples = embedder().reads_whole_lines() && !config_.entry->decodes;
  return as_examples ? LineEncoder::End::closed : LineEncoder::End::open;
}

LineEmbeddings TrainedModel::embed(std::span<const LineIds> lines, LineEmbedding which) {
  Embedder& embedder = this->embedder();
  const Embedder::Units units = embedder.units();
  Collector collector(lines, units, which);
  for (const PackedLines& packed : packed_lines(lines, embedder.reads_whole_lines())) {
    const std::vector<LineStep> tokens = line_steps(packed);
    forward_lines(packed, [&](Pass& pass, const Batch& batch, const State& state) {
      const std::vector<float> hidden = host_floats(embedder.hidden(pass, batch, state));
      std::vector<std::int64_t> place(static_cast<std::size_t>(batch["place"].size()));
      copy_to_host(batch["place"], place.data());
      for (std::size_t i = 0; i < place.size(); ++i) {
        if (place[i] < 0) continue;
        const auto [line, step] = tokens[static_cast<std::size_t>(place[i])];
        collector.add(line, step, hidden.data() + static_cast<std::int64_t>(i) * units.all());
      }
    });
  }
  return std::move(collector).result();
}

}  // namespace carousel
