#include "engine/batches/line_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "engine/batches/draws.h"
#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

// Distinct from the random streams of all masks.
constexpr std::uint64_t kShuffleStream = 0xDA7A'0000'0002U;
constexpr std::int64_t kStep = 8;  // bounds are multiples of it

// Label and number of a row that only fills up a batch.
constexpr std::int32_t kNoExample = -1;

// The bound after this one: few bounds for long lines, little padding for short ones.
std::int64_t bound_after(std::int64_t bound) {
  return (bound + std::max(kStep, bound / 4) + kStep - 1) / kStep * kStep;
}

}  // namespace

LinePlan::LinePlan(Lines lines, const LineOptions& options)
    : lines_read_(std::move(lines)),
      options_(options),
      all_rows_(options.share.all_rows(options.batch)) {
  const TokenRange& tokens = lines_read_.tokens;
  if (tokens.count == 0 || tokens[0] != options.begin) {
    throw FormatError(fmt::format("{}: {}", tokens.name,
                                  tokens.count == 0 ? "no lines"
                                                    : "the tokens do not begin with <bos>, as "
                                                      "those of lines do"));
  }
  const std::vector<Line> found = find_lines();
  if (lines_read_.labels && lines_read_.labels->count != std::ssize(found)) {
    throw FormatError(fmt::format("{}: {} lines and {} labels, expected a label a line",
                                  tokens.name, found.size(), lines_read_.labels->count));
  }
  expect_answers(found);
  sort_into_buckets(found);
  cut_into_batches();
  arrange(0);
  for (const Line& line : lines_) counted_ += counted_of(line);
  read_.resize(static_cast<std::size_t>(longest_) + 1);
}

std::vector<LinePlan::Line> LinePlan::find_lines() const {
  constexpr std::int64_t kPiece = std::int64_t{1} << 16;
  const TokenRange& tokens = lines_read_.tokens;
  std::vector<Line> found;
  std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(kPiece, tokens.count)));
  for (std::int64_t at = 0; at < tokens.count; at += kPiece) {
    const std::int64_t count = std::min(kPiece, tokens.count - at);
    tokens.read(at, count, piece.data());
    for (std::int64_t i = 0; i < count; ++i) {
      if (piece[static_cast<std::size_t>(i)] == options_.begin) {
        // The last token is only a target where the next token is one.
        const std::int64_t steps = lines_read_.next_token ? 0 : 1;
        found.push_back({.start = at + i,
                         .steps = steps,
                         .number = std::ssize(found),
                         .question = options_.answer_after < 0 ? 0 : -1});
      } else {
        Line& line = found.back();
        ++line.steps;
        const bool answers = piece[static_cast<std::size_t>(i)] == options_.answer_after;
        if (answers && line.question < 0) line.question = line.steps;
      }
    }
  }
  return found;
}

void LinePlan::expect_answers(const std::vector<Line>& found) const {
  const auto without =
      std::find_if(found.begin(), found.end(), [](const Line& line) { return line.question < 0; });
  if (without == found.end()) return;
  throw FormatError(
      fmt::format("{}: line {} lacks the token of data.answer_after, expected it in each line",
                  lines_read_.tokens.name, without->number + 1));
}

void LinePlan::sort_into_buckets(const std::vector<Line>& found) {
  for (const Line& line : found) longest_ = std::max(longest_, line.steps);
  lines_.reserve(found.size());
  for (std::int64_t low = 0; low < longest_;) {
    const std::int64_t bound = std::min(longest_, bound_after(low));
    const auto first = static_cast<std::int64_t>(lines_.size());
    for (const Line& line : found) {
      if (line.steps > low && line.steps <= bound) lines_.push_back(line);
    }
    const std::int64_t count = static_cast<std::int64_t>(lines_.size()) - first;
    if (count > 0) buckets_.push_back({first, count, bound});
    low = bound;
  }
}

void LinePlan::cut_into_batches() {
  for (const Group& bucket : buckets_) {
    for (std::int64_t i = 0; i < bucket.count; i += all_rows_) {
      unmixed_.push_back({bucket.first + i, std::min(all_rows_, bucket.count - i), bucket.bound});
    }
  }
}

void LinePlan::arrange(std::int64_t epoch) {
  if (arranged_ == epoch || (arranged_ >= 0 && !options_.shuffle)) return;
  arranged_ = epoch;
  // Shuffles the unmixed order, not that of the epoch before, so that seek() reaches any epoch at
  // once.
  order_.resize(lines_.size());
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  batches_ = unmixed_;
  if (!options_.shuffle) return;
  Draws draws({.seed = options_.seed, .stream = kShuffleStream}, epoch);
  for (const Group& bucket : buckets_) {
    shuffle(std::span(order_).subspan(static_cast<std::size_t>(bucket.first),
                                      static_cast<std::size_t>(bucket.count)),
            draws);
  }
  shuffle(std::span(batches_), draws);
}

BatchLimits LinePlan::limits() const {
  BatchLimits limits{.rows = options_.batch,
                     .fields = {{.name = "token", .steps = longest_, .lengths = true}}};
  if (lines_read_.next_token) {
    limits.fields.push_back({.name = "target", .steps = longest_, .lengths = true});
  }
  if (lines_read_.labels) limits.fields.push_back({.name = "label"});
  if (numbered()) limits.fields.push_back({.name = "number"});
  return limits;
}

void LinePlan::fill(const DataPosition& position, HostBatch& batch) {
  arrange(position.epoch);
  const Group& group = batches_[static_cast<std::size_t>(position.index)];
  for (HostField& field : batch.fields) field.steps = group.bound;
  batch.counted = 0;
  const std::int64_t first = options_.share.rank * options_.batch;
  for (std::int64_t row = 0; row < options_.batch; ++row) {
    const Line* line = nullptr;
    if (first + row < group.count) {
      const auto number = order_[static_cast<std::size_t>(group.first + first + row)];
      line = &lines_[static_cast<std::size_t>(number)];
    }
    fill_row(row, line, batch);
  }
}

void LinePlan::fill_row(std::int64_t row, const Line* line, HostBatch& batch) {
  auto field = batch.fields.begin();
  const std::int64_t steps = line == nullptr ? 0 : line->steps;
  const std::int64_t last = lines_read_.next_token ? 1 : 0;
  if (line != nullptr) lines_read_.tokens.read(line->start, steps + last, read_.data());
  const auto fill_steps = [&](std::int64_t first, std::int64_t shift, std::int32_t padding) {
    field->lengths[row] = static_cast<std::int32_t>(steps);
    for (std::int64_t t = 0; t < field->steps; ++t) {
      field->ids()[t * options_.batch + row] =
          first <= t && t < steps ? read_[static_cast<std::size_t>(t + shift)] : padding;
    }
    ++field;
  };
  fill_steps(0, 0, 0);
  if (lines_read_.next_token) {
    fill_steps(line == nullptr ? 0 : line->question, 1, GatherWindows::kNoTarget);
  }
  if (lines_read_.labels) {
    (field++)->ids()[row] = line == nullptr ? kNoExample : (*lines_read_.labels)[line->number];
  }
  if (numbered()) {
    (field++)->ids()[row] = line == nullptr ? kNoExample : static_cast<std::int32_t>(line->number);
  }
  if (line != nullptr) batch.counted += counted_of(*line);
}

}  // namespace carousel
