#include "engine/batches/packed_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {

PackedPlan::PackedPlan(const TokenRange& tokens, const TokenRange& lengths,
                       const PackedOptions& options)
    : tokens_(tokens), options_(options) {
  if (options.rows < 1 || options.steps < 1) {
    throw ConfigError(fmt::format("data: {} rows of {} steps, expected at least 1 of each",
                                  options.rows, options.steps));
  }
  sort_into_rows(find_lines(lengths));
  read_.resize(static_cast<std::size_t>(options.steps) + 2);
}

std::vector<PackedPlan::Line> PackedPlan::find_lines(const TokenRange& lengths) const {
  std::vector<std::int32_t> length(static_cast<std::size_t>(lengths.count)), read;
  lengths.read(0, lengths.count, length.data());
  std::vector<Line> lines;
  std::int64_t start = 0;
  for (const std::int32_t count : length) {
    Line line{.start = start, .count = count};
    if (options_.answer_after >= 0) {
      read.resize(static_cast<std::size_t>(count));
      tokens_.read(start, count, read.data());
      const auto found = std::find(read.begin(), read.end(), options_.answer_after);
      line.question = std::min<std::int64_t>(found - read.begin(), std::max(count - 1, 0));
    }
    if (count > 0) lines.push_back(line);
    start += count;
  }
  if (start == tokens_.count) return lines;
  throw FormatError(
      fmt::format("{}: {} tokens in lines of {} together", tokens_.name, tokens_.count, start));
}

/// Where a line begins whose row has been filled up to `step`.
std::int64_t PackedPlan::step_for(const Line& line, std::int64_t step) const {
  if (!options_.whole) return step;
  if (line.count > options_.steps) {
    throw ConfigError(fmt::format("data: a line of {} tokens, expected at most the {} of a window",
                                  line.count, options_.steps));
  }
  const std::int64_t used = step % options_.steps;
  return used + line.count <= options_.steps ? step : step - used + options_.steps;
}

void PackedPlan::sort_into_rows(std::vector<Line> lines) {
  // The longest line first, each into the shortest row: rows become about equally long.
  std::stable_sort(lines.begin(), lines.end(),
                   [](const Line& a, const Line& b) { return a.count > b.count; });
  using Row = std::pair<std::int64_t, std::size_t>;  // its steps, its number
  std::priority_queue<Row, std::vector<Row>, std::greater<>> shortest;
  rows_.resize(static_cast<std::size_t>(options_.rows));
  for (std::size_t row = 0; row < rows_.size(); ++row) shortest.emplace(0, row);
  std::int64_t longest = 0;
  for (Line& line : lines) {
    const auto [step, row] = shortest.top();
    shortest.pop();
    line.step = step_for(line, step);
    rows_[row].push_back(line);
    shortest.emplace(line.end(), row);
    longest = std::max(longest, line.end());
    counted_ += line.count - 1 - line.question;
  }
  batches_ = (longest + options_.steps - 1) / options_.steps;
}

BatchLimits PackedPlan::limits() const {
  const std::int64_t steps = options_.steps;
  return {.rows = options_.rows,
          .fields = {{.name = "token", .steps = steps},
                     {.name = "target", .steps = steps},
                     {.name = "place", .steps = steps, .dtype = DType::i64}},
          .reset_steps = steps};
}

void PackedPlan::fill(const DataPosition& position, HostBatch& batch) {
  for (HostField& field : batch.fields) field.steps = options_.steps;
  batch.reset.steps = options_.steps;
  batch.counted = 0;
  for (std::int64_t row = 0; row < options_.rows; ++row) {
    fill_row(row, position.index * options_.steps, batch);
  }
}

void PackedPlan::fill_row(std::int64_t row, std::int64_t first_step, HostBatch& batch) {
  const auto set = [&](std::int64_t step, std::int32_t token, std::int32_t target,
                       std::int64_t place, bool reset) {
    const std::int64_t to = (step - first_step) * options_.rows + row;
    batch.fields[0].ids()[to] = token;
    batch.fields[1].ids()[to] = target;
    batch.fields[2].as<std::int64_t>()[to] = place;
    batch.reset.ids()[to] = reset ? 1 : 0;
    batch.counted += target == GatherWindows::kNoTarget ? 0 : 1;
  };
  const std::vector<Line>& lines = rows_[static_cast<std::size_t>(row)];
  auto line = std::upper_bound(lines.begin(), lines.end(), first_step,
                               [](std::int64_t step, const Line& l) { return step < l.end(); });
  std::int64_t step = first_step;
  const std::int64_t end = first_step + options_.steps;
  const auto fill_up_to = [&](std::int64_t next) {
    for (; step < next; ++step) set(step, 0, GatherWindows::kNoTarget, -1, true);
  };
  for (; line != lines.end() && line->step < end; ++line) {
    fill_up_to(line->step);
    const std::int64_t first = step - line->step, count = std::min(end - step, line->count - first);
    // read_[1 + i] is token first + i of the line.
    const std::int64_t before = std::min<std::int64_t>(first, 1);
    const std::int64_t after = std::min<std::int64_t>(line->count - first - count, 1);
    tokens_.read(line->start + first - before, before + count + after, read_.data() + 1 - before);
    for (std::int64_t i = 0; i < count; ++i, ++step) {
      const std::int32_t* const token = read_.data() + 1 + i;
      const std::int64_t at = first + i;
      const bool begins = at == 0, counts = at >= line->question && at + 1 < line->count;
      set(step, token[0], counts ? token[1] : GatherWindows::kNoTarget, line->start + at,
          begins || (options_.document_end >= 0 && token[-1] == options_.document_end));
    }
  }
  fill_up_to(end);
}

}  // namespace carousel
