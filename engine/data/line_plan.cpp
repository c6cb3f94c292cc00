#include "engine/data/line_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/common/random.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

// Apart from every stream that a model draws its masks from.
constexpr std::uint64_t kShuffleStream = 0xDA7A'0000'0002U;
constexpr std::int64_t kStep = 8;  // bounds are multiples of it

// The bound after this one: few bounds for long lines, little padding for short ones.
std::int64_t bound_after(std::int64_t bound) {
  return (bound + std::max(kStep, bound / 4) + kStep - 1) / kStep * kStep;
}

/// Numbers drawn one after another from a source at one step.
class Draws {
 public:
  Draws(const RandomSource& source, std::int64_t step) : source_(source), step_(step) {}

  /// Uniform among 0 … n − 1.
  std::int64_t below(std::int64_t n) {
    const auto range = static_cast<std::uint64_t>(n);
    // Values from the last, incomplete repetition of the range would favour its beginning.
    const std::uint64_t limit = std::numeric_limits<std::uint64_t>::max() / range * range;
    std::uint64_t bits = next();
    while (bits >= limit) bits = next();
    return static_cast<std::int64_t>(bits % range);
  }

 private:
  std::uint64_t next() {
    const auto words = source_.words(block_++, step_);
    return std::uint64_t{words[0]} << 32 | words[1];
  }
  RandomSource source_;
  std::int64_t step_;
  std::uint64_t block_ = 0;
};

// Fisher and Yates's shuffle, in Durstenfeld's form (1964, CACM 7:420, algorithm 235).
template <class T>
void shuffle(std::span<T> items, Draws& draws) {
  for (std::size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1],
              items[static_cast<std::size_t>(draws.below(static_cast<std::int64_t>(i)))]);
  }
}

}  // namespace

LinePlan::LinePlan(const TokenRange& tokens, const LineOptions& options)
    : tokens_(tokens), options_(options) {
  if (options.batch < 1) {
    throw ConfigError(fmt::format("data: batch is {}, expected at least 1", options.batch));
  }
  if (tokens.count == 0 || tokens[0] != options.begin) {
    throw FormatError(fmt::format("{}: {}", tokens.name,
                                  tokens.count == 0 ? "no lines"
                                                    : "the tokens do not begin with <bos>, as "
                                                      "those of lines do"));
  }
  sort_into_buckets(find_lines());
  cut_into_batches();
  arrange(0);
  read_.resize(static_cast<std::size_t>(longest_) + 1);
}

std::vector<LinePlan::Line> LinePlan::find_lines() const {
  constexpr std::int64_t kPiece = std::int64_t{1} << 16;
  std::vector<Line> found;
  std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(kPiece, tokens_.count)));
  for (std::int64_t at = 0; at < tokens_.count; at += kPiece) {
    const std::int64_t count = std::min(kPiece, tokens_.count - at);
    tokens_.read(at, count, piece.data());
    for (std::int64_t i = 0; i < count; ++i) {
      if (piece[static_cast<std::size_t>(i)] == options_.begin) {
        found.push_back({at + i, 0});
      } else {
        ++found.back().steps;
      }
    }
  }
  return found;
}

void LinePlan::sort_into_buckets(const std::vector<Line>& found) {
  for (const Line& line : found) {
    longest_ = std::max(longest_, line.steps);
    all_targets_ += line.steps;
  }
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
    for (std::int64_t i = 0; i < bucket.count; i += options_.batch) {
      unmixed_.push_back(
          {bucket.first + i, std::min(options_.batch, bucket.count - i), bucket.bound});
    }
  }
}

void LinePlan::arrange(std::int64_t epoch) {
  if (arranged_ == epoch || (arranged_ >= 0 && !options_.shuffle)) return;
  arranged_ = epoch;
  // From the unmixed order, not from the last epoch's: so that any epoch can be gone to at once.
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
  return {.steps = longest_, .rows = options_.batch, .resets = false, .lengths = true};
}

void LinePlan::fill(const DataPosition& position, HostBatch& batch) {
  arrange(position.epoch);
  const Group& group = batches_[static_cast<std::size_t>(position.index)];
  batch.steps = group.bound;
  batch.tokens = 0;
  for (std::int64_t row = 0; row < options_.batch; ++row) {
    std::int64_t steps = 0;
    if (row < group.count) {
      const auto number = order_[static_cast<std::size_t>(group.first + row)];
      const Line& line = lines_[static_cast<std::size_t>(number)];
      steps = line.steps;
      tokens_.read(line.start, steps + 1, read_.data());
    }
    batch.lengths[row] = static_cast<std::int32_t>(steps);
    batch.tokens += steps;
    for (std::int64_t t = 0; t < batch.steps; ++t) {
      const auto at = static_cast<std::size_t>(t);
      const std::int64_t to = t * options_.batch + row;
      batch.token[to] = t < steps ? read_[at] : 0;
      batch.target[to] = t < steps ? read_[at + 1] : GatherWindows::kNoTarget;
    }
  }
}

}  // namespace carousel
