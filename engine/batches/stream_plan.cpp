#include "engine/batches/stream_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "kernels/common/check.h"
#include "kernels/common/random.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

// Apart from every stream that a model draws its masks from.
constexpr std::uint64_t kStartStream = 0xDA7A'0000'0001U;

void expect_positive(const char* what, std::int64_t value) {
  if (value < 1) throw ConfigError(fmt::format("data: {} is {}, expected at least 1", what, value));
}

std::int64_t longest(const StreamLayout& layout) {
  return layout.targets + (layout.longer > 0 ? 1 : 0);
}

}  // namespace

std::int64_t Share::all_rows(std::int64_t batch) const {
  expect_positive("batch", batch);
  if (rank < 0 || rank >= world || batch > std::numeric_limits<std::int64_t>::max() / world) {
    throw ConfigError(
        fmt::format("data: rank {} of {} with a batch of {}, expected rank below the "
                    "number of processes, and rows that can be counted",
                    rank, world, batch));
  }
  return batch * world;
}

std::int64_t StreamLayout::start(std::int64_t row) const {
  return (first_row + row) * stride + std::min(first_row + row, longer);
}

std::int64_t StreamLayout::targets_of(std::int64_t row) const {
  return targets + (first_row + row < longer ? 1 : 0);
}

std::int64_t StreamLayout::windows() const { return (longest(*this) + window - 1) / window; }

std::int64_t StreamLayout::steps(std::int64_t index) const {
  return std::min(window, longest(*this) - index * window);
}

StreamLayout training_layout(const TokenRange& tokens, const StreamOptions& options) {
  expect_positive("window", options.window);
  const std::int64_t rows = options.share.all_rows(options.batch), count = tokens.count;
  // Compared by division, for rows · window may overflow.
  if ((count - 1) / rows < options.window) {
    throw FormatError(
        fmt::format("{}: {} tokens are too few for {} rows with a window of {}, which take one "
                    "more than {} · {}",
                    tokens.name, count, rows, options.window, rows, options.window));
  }
  const std::int64_t spare = count - 1 - rows * options.window;
  const std::int64_t slack = options.random_start ? std::min(options.window - 1, spare) : 0;
  const std::int64_t stride = (count - slack) / rows;
  // The token after the last row's end is missing if the rows use up the stream.
  const std::int64_t targets = std::min(stride, (count - slack - 1) - (rows - 1) * stride);
  return {.all_rows = rows,
          .first_row = options.share.rank * options.batch,
          .rows = options.batch,
          .window = options.window,
          .stride = stride,
          .longer = 0,
          .targets = targets,
          .slack = slack};
}

StreamLayout evaluation_layout(const TokenRange& tokens, const StreamOptions& options) {
  expect_positive("window", options.window);
  const std::int64_t rows = options.share.all_rows(options.batch);
  if (tokens.count < 2) {
    throw FormatError(fmt::format("{}: {} tokens are too few to evaluate on, which takes two",
                                  tokens.name, tokens.count));
  }
  const std::int64_t targets = tokens.count - 1;
  return {.all_rows = rows,
          .first_row = options.share.rank * options.batch,
          .rows = options.batch,
          .window = options.window,
          .stride = targets / rows,
          .longer = targets % rows,
          .targets = targets / rows,
          .slack = 0};
}

std::int64_t epoch_start(const StreamLayout& layout, std::uint64_t seed, std::int64_t epoch) {
  if (layout.slack == 0) return 0;
  const RandomSource random{.seed = seed, .stream = kStartStream};
  const auto words = random.words(0, epoch);
  // 64 random bits for a small number: the bias of the remainder is beyond notice.
  const std::uint64_t bits = std::uint64_t{words[0]} << 32 | words[1];
  return static_cast<std::int64_t>(bits % (static_cast<std::uint64_t>(layout.slack) + 1));
}

StreamPlan::StreamPlan(const TokenRange& tokens, const StreamLayout& layout,
                       const StreamOptions& options)
    : tokens_(tokens),
      layout_(layout),
      options_(options),
      read_(static_cast<std::size_t>(layout.window) + 2) {}

BatchLimits StreamPlan::limits() const {
  const std::int64_t steps = layout_.steps(0);
  return {.rows = layout_.rows,
          .fields = {{.name = "token", .steps = steps}, {.name = "target", .steps = steps}},
          .reset_steps = options_.document_end >= 0 ? steps : 0};
}

void StreamPlan::fill(const DataPosition& position, HostBatch& batch) {
  const std::int64_t steps = layout_.steps(position.index);
  for (HostField* field : {&batch.fields[0], &batch.fields[1], &batch.reset}) field->steps = steps;
  batch.counted = 0;
  for (std::int64_t row = 0; row < layout_.rows; ++row) fill_row(row, position, batch);
}

void StreamPlan::fill_row(std::int64_t row, const DataPosition& position, HostBatch& batch) {
  const std::int64_t done = position.index * layout_.window;
  const std::int64_t steps = batch.fields[0].steps;
  std::int32_t* const tokens = batch.fields[0].ids();
  std::int32_t* const targets = batch.fields[1].ids();
  std::int32_t* const resets = batch.reset.ids();
  const std::int64_t count = std::clamp<std::int64_t>(layout_.targets_of(row) - done, 0, steps);
  const std::int64_t first =
      epoch_start(layout_, options_.seed, position.epoch) + layout_.start(row) + done;
  // read_[1 + t] is the token of step t, the one before it tells whether a document ended there.
  read_[0] = -1;
  if (count > 0) {
    const std::int64_t before = std::min<std::int64_t>(first, 1);
    tokens_.read(first - before, before + count + 1, read_.data() + (1 - before));
  }
  batch.counted += count;
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t to = t * layout_.rows + row;
    const std::int32_t* const token = read_.data() + 1 + t;
    tokens[to] = t < count ? token[0] : 0;
    targets[to] = t < count ? token[1] : GatherWindows::kNoTarget;
    if (resets != nullptr) {
      const bool begins = first + t == 0 || token[-1] == options_.document_end;
      resets[to] = t < count && begins ? 1 : 0;
    }
  }
}

}  // namespace carousel
