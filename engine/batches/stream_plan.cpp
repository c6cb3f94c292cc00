#include "engine/batches/stream_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numbers>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/common/random.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

// Distinct from the random streams of all masks.
constexpr std::uint64_t kStartStream = 0xDA7A'0000'0001U;
constexpr std::uint64_t kWindowStream = 0xDA7A'0000'0004U;
constexpr std::uint64_t kRestartStream = 0xDA7A'0000'0005U;

// Of drawn windows: the fewest steps, and how many deviations above the window are the most. One in
// 30,000 is cut there.
constexpr std::int64_t kLeastSteps = 5;
constexpr double kMostDeviations = 4;

void expect_positive(const char* what, std::int64_t value) {
  if (value < 1) throw ConfigError(fmt::format("data: {} is {}, expected at least 1", what, value));
}

void expect_probability(const char* what, double value) {
  if (!(value >= 0 && value <= 1)) {
    throw ConfigError(fmt::format("data: {} is {}, expected a probability", what, value));
  }
}

// Neither 0 nor 1.
double between_0_and_1(std::uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1.0p-32; }

}  // namespace

std::int64_t Share::all_rows(std::int64_t batch) const {
  expect_positive("batch", batch);
  if (rank < 0 || rank >= world || batch > std::numeric_limits<std::int64_t>::max() / world) {
    throw ConfigError(
        fmt::format("data: rank {} of {} with a batch of {}, expected a rank below the "
                    "number of processes, and a whole batch of fewer than 2^63 rows",
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

StreamLayout training_layout(const TokenRange& tokens, const StreamOptions& options) {
  expect_positive("window", options.window);
  // Few enough that the largest window is a number of steps.
  if (!(options.window_deviation >= 0 && options.window_deviation <= 1e9)) {
    throw ConfigError(fmt::format("data: window_deviation is {}, expected a number from 0 to 1e9",
                                  options.window_deviation));
  }
  expect_probability("window_halving", options.window_halving);
  expect_probability("reset_probability", options.reset_probability);
  const std::int64_t rows = options.share.all_rows(options.batch), count = tokens.count;
  // Compared by division, for rows · window may overflow.
  if ((count - 1) / rows < options.window) {
    throw FormatError(
        fmt::format("{}: {} token{} too few for {} rows with a window of {}, which take one "
                    "more than {} · {}",
                    tokens.name, count, count == 1 ? " is" : "s are", rows, options.window, rows,
                    options.window));
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
    throw FormatError(fmt::format("{}: {}, too few to evaluate on, which takes two", tokens.name,
                                  tokens.count == 1 ? "1 token" : "no token"));
  }
  if (options.overlap < 0 || options.overlap >= options.window) {
    throw ConfigError(
        fmt::format("data: overlap is {}, expected 0 or more, and less than the window, {}",
                    options.overlap, options.window));
  }
  const std::int64_t targets = tokens.count - 1;
  return {.all_rows = rows,
          .first_row = options.share.rank * options.batch,
          .rows = options.batch,
          .window = options.window,
          .overlap = options.overlap,
          .stride = targets / rows,
          .longer = targets % rows,
          .targets = targets / rows,
          .slack = 0};
}

std::int64_t epoch_start(const StreamLayout& layout, std::uint64_t seed, std::int64_t epoch) {
  if (layout.slack == 0) return 0;
  const RandomSource random{.seed = seed, .stream = kStartStream};
  const auto words = random.words(0, epoch);
  // The bias of a remainder of 64 random bits is negligible for a small divisor.
  const std::uint64_t bits = std::uint64_t{words[0]} << 32 | words[1];
  return static_cast<std::int64_t>(bits % (static_cast<std::uint64_t>(layout.slack) + 1));
}

RowRestarts::RowRestarts(const StreamOptions& options)
    : probability_(options.reset_probability),
      random_{.seed = options.seed, .stream = kRestartStream} {}

bool RowRestarts::at(const DataPosition& position, std::int64_t row) const {
  // A row of a batch has a block of its own: index and row have 32 bits each of the block's number.
  const std::uint64_t block =
      static_cast<std::uint64_t>(position.index) << 32 | static_cast<std::uint32_t>(row);
  return between_0_and_1(random_.words(block, position.epoch)[0]) < probability_;
}

StreamWindows::StreamWindows(const StreamLayout& layout, const StreamOptions& options)
    : window_(layout.window),
      advance_(layout.window - layout.overlap),
      longest_(layout.longest()),
      most_steps_(std::min(layout.window + static_cast<std::int64_t>(std::ceil(
                                               kMostDeviations * options.window_deviation)),
                           longest_)),
      deviation_(options.window_deviation),
      halving_(options.window_halving),
      random_{.seed = options.seed, .stream = kWindowStream} {}

std::int64_t StreamWindows::in(std::int64_t epoch) const {
  if (!drawing())
    return 1 + (std::max(longest_ - window_, std::int64_t{0}) + advance_ - 1) / advance_;
  return static_cast<std::int64_t>(begins(epoch)->size()) - 1;
}

StreamWindows::Window StreamWindows::at(const DataPosition& position) const {
  if (!drawing()) {
    const std::int64_t begin = position.index * advance_;
    return {.begin = begin,
            .steps = std::min(window_, longest_ - begin),
            .again = position.index > 0 ? window_ - advance_ : 0};
  }
  const auto all = begins(position.epoch);
  const auto index = static_cast<std::size_t>(position.index);
  const std::int64_t steps = (*all)[index + 1] - (*all)[index];
  return {.begin = (*all)[index],
          .steps = steps,
          .learning_rate_factor = static_cast<double>(steps) / static_cast<double>(window_)};
}

std::int64_t StreamWindows::drawn_steps(const DataPosition& position) const {
  const auto words = random_.words(static_cast<std::uint64_t>(position.index), position.epoch);
  const bool halved = between_0_and_1(words[0]) < halving_;
  // Box and Muller's transform.
  const double normal = std::sqrt(-2 * std::log(between_0_and_1(words[1]))) *
                        std::cos(2 * std::numbers::pi * between_0_and_1(words[2]));
  const double mean = static_cast<double>(window_) / (halved ? 2 : 1);
  return std::clamp(static_cast<std::int64_t>(mean + deviation_ * normal),
                    std::min(kLeastSteps, window_), most_steps_);
}

std::shared_ptr<const StreamWindows::Begins> StreamWindows::begins(std::int64_t epoch) const {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Begins>& found = drawn_[epoch];
  if (found) return found;
  Begins result{0};
  for (DataPosition at{.epoch = epoch}; result.back() < longest_; ++at.index) {
    result.push_back(std::min(result.back() + drawn_steps(at), longest_));
  }
  const auto begins = found = std::make_shared<const Begins>(std::move(result));
  if (drawn_.size() > 2)
    drawn_.erase(drawn_.begin()->first == epoch ? std::prev(drawn_.end()) : drawn_.begin());
  return begins;
}

StreamPlan::StreamPlan(const TokenRange& tokens, const StreamLayout& layout,
                       const StreamOptions& options)
    : tokens_(tokens),
      layout_(layout),
      options_(options),
      windows_(layout, options),
      restarts_(options),
      read_(static_cast<std::size_t>(windows_.most_steps()) + 2) {}

BatchLimits StreamPlan::limits() const {
  const std::int64_t steps = windows_.most_steps();
  return {.rows = layout_.rows,
          .fields = {{.name = "token", .steps = steps}, {.name = "target", .steps = steps}},
          .reset_steps = options_.document_end >= 0 || restarts_.drawing() ? steps : 0};
}

void StreamPlan::fill(const DataPosition& position, HostBatch& batch) {
  const StreamWindows::Window window = windows_.at(position);
  for (HostField* field : {&batch.fields[0], &batch.fields[1], &batch.reset}) {
    field->steps = window.steps;
  }
  batch.counted = 0;
  batch.learning_rate_factor = window.learning_rate_factor;
  for (std::int64_t row = 0; row < layout_.rows; ++row) {
    fill_row(row, position, window, batch);
  }
}

void StreamPlan::fill_row(std::int64_t row, const DataPosition& position,
                          const StreamWindows::Window& window, HostBatch& batch) {
  const std::int64_t steps = window.steps, done = window.begin;
  std::int32_t* const tokens = batch.fields[0].ids();
  std::int32_t* const targets = batch.fields[1].ids();
  std::int32_t* const resets = batch.reset.ids();
  const std::int64_t count = std::clamp<std::int64_t>(layout_.targets_of(row) - done, 0, steps);
  const std::int64_t first =
      epoch_start(layout_, options_.seed, position.epoch) + layout_.start(row) + done;
  const bool restarts = restarts_.drawing() && restarts_.at(position, layout_.first_row + row);
  // read_[1 + t] is the token of step t, the one before it tells whether a document ended there.
  read_[0] = -1;
  if (count > 0) {
    const std::int64_t before = std::min<std::int64_t>(first, 1);
    tokens_.read(first - before, before + count + 1, read_.data() + (1 - before));
  }
  batch.counted += std::max(count - window.again, std::int64_t{0});
  for (std::int64_t t = 0; t < steps; ++t) {
    const std::int64_t to = t * layout_.rows + row;
    const std::int32_t* const token = read_.data() + 1 + t;
    tokens[to] = t < count ? token[0] : 0;
    targets[to] = t >= window.again && t < count ? token[1] : GatherWindows::kNoTarget;
    if (resets != nullptr) {
      const bool begins = first + t == 0 || (t == 0 && restarts) ||
                          (options_.document_end >= 0 && token[-1] == options_.document_end);
      resets[to] = t < count && begins ? 1 : 0;
    }
  }
}

}  // namespace carousel
