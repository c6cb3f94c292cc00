#include "engine/batches/line_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

constexpr std::int64_t kBoundStep = 8;

// Label and number of a row that only fills up a batch.
constexpr std::int32_t kNoExample = -1;

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
  for (const Line& line : lines_) counted_ += counted_of(line);
  read_.resize(static_cast<std::size_t>(longest_) + 1);
}

std::vector<LinePlan::Line> LinePlan::find_lines() const {
  std::vector<Line> found;
  lines_read_.tokens.read_pieces([&](std::span<const std::int32_t> piece, std::int64_t at) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      if (piece[i] == options_.begin) {
        // The last token is only a target where the next token is one.
        const std::int64_t steps = lines_read_.next_token ? 0 : 1;
        found.push_back({.start = at + static_cast<std::int64_t>(i),
                         .steps = steps,
                         .number = std::ssize(found),
                         .question = options_.answer_after < 0 ? 0 : -1});
      } else {
        Line& line = found.back();
        ++line.steps;
        if (piece[i] == options_.answer_after && line.question < 0) line.question = line.steps;
      }
    }
  });
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
  std::vector<BucketOrder::Bucket> buckets;
  for (std::int64_t low = 0; low < longest_;) {
    const std::int64_t bound = std::min(longest_, bound_after(low, kBoundStep));
    const std::int64_t before = std::ssize(lines_);
    for (const Line& line : found) {
      if (line.steps > low && line.steps <= bound) lines_.push_back(line);
    }
    if (std::ssize(lines_) > before) {
      bounds_.push_back(bound);
      buckets.push_back({std::ssize(lines_) - before, all_rows_});
    }
    low = bound;
  }
  order_ = BucketOrder(buckets, options_.shuffle, options_.seed);
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
  const BucketOrder::Items items = order_.batch(position);
  for (HostField& field : batch.fields) field.steps = bounds_[items.bucket];
  batch.counted = 0;
  const std::int64_t first = options_.share.rank * options_.batch;
  for (std::int64_t row = 0; row < options_.batch; ++row) {
    const std::int64_t item = items.at(first + row);
    fill_row(row, item < 0 ? nullptr : &lines_[static_cast<std::size_t>(item)], batch);
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
