#include "engine/batches/pair_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <span>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

// Fine, for buckets are joined: of 143,000 English-French pairs of 7 words on average, 8 % of the
// tokens of batches of 64 are padding in 29 shapes; with a step of 8, 28 % in 9.
constexpr std::int64_t kBoundStep = 2;

// Every pair of bounds is a step of its own to StepGraphs, which keeps 64.
constexpr std::size_t kMostBuckets = 48;

// The number of a row that only fills up a batch.
constexpr std::int32_t kNoExample = -1;

std::int64_t bound_of(std::int64_t steps, std::int64_t longest) {
  std::int64_t bound = 0;
  while (bound < steps) bound = bound_after(bound, kBoundStep);
  return std::min(bound, longest);
}

}  // namespace

std::unique_ptr<BatchSource> paired_batches(const Device& device, PairedLines pairs,
                                            const LineOptions& options) {
  return prefetched(device, std::make_unique<PairPlan>(std::move(pairs), options));
}

PairPlan::PairPlan(PairedLines pairs, const LineOptions& options)
    : lines_(std::move(pairs)),
      options_(options),
      world_(options.share.all_rows(options.batch) / options.batch) {
  const std::vector<Pair> found = find_pairs();
  for (const Pair& pair : found) {
    longest_.source = std::max(longest_.source, pair.source.steps);
    longest_.target = std::max(longest_.target, pair.target.steps);
    counted_ += paired() ? pair.target.steps : 1;
  }
  sort_into_buckets(found);
  read_.resize(static_cast<std::size_t>(std::max(longest_.source, longest_.target)) + 1);
}

std::vector<PairPlan::Span> PairPlan::lines_of(const TokenRange& tokens) const {
  if (tokens.count == 0 || tokens[0] != options_.begin) {
    throw FormatError(fmt::format("{}: {}", tokens.name,
                                  tokens.count == 0 ? "no lines"
                                                    : "the tokens do not begin with <bos>, as "
                                                      "those of lines do"));
  }
  std::vector<Span> found;
  tokens.read_pieces([&](std::span<const std::int32_t> piece, std::int64_t at) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      if (piece[i] == options_.begin) {
        found.push_back({.start = at + static_cast<std::int64_t>(i)});
      } else {
        ++found.back().steps;
      }
    }
  });
  return found;
}

std::vector<PairPlan::Pair> PairPlan::find_pairs() const {
  const std::vector<Span> sources = lines_of(lines_.sources);
  std::vector<Span> targets(sources.size());
  if (paired()) targets = lines_of(*lines_.targets);
  if (targets.size() != sources.size()) {
    throw FormatError(fmt::format("{}: {} sources and {} targets, expected one for each",
                                  lines_.sources.name, sources.size(), targets.size()));
  }
  std::vector<Pair> found;
  found.reserve(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    found.push_back({sources[i], targets[i], static_cast<std::int64_t>(i)});
  }
  return found;
}

std::int64_t PairPlan::rows_of(const Bounds& bounds) const {
  if (options_.tokens == 0) return options_.batch;
  return std::max<std::int64_t>(1, options_.tokens / std::max(bounds.source, bounds.target));
}

/// Tokens of the batches of so many pairs, padding and rows that fill up included.
std::int64_t PairPlan::padded(std::size_t pairs, const Bounds& bounds) const {
  const std::int64_t rows = all_rows(bounds);
  const std::int64_t batches = (static_cast<std::int64_t>(pairs) + rows - 1) / rows;
  return batches * rows * (bounds.source + bounds.target);
}

/// Joins the two buckets that are best joined, if any are.
bool PairPlan::join_two(std::vector<Bucket>& buckets) const {
  std::int64_t least = buckets.size() > kMostBuckets ? std::numeric_limits<std::int64_t>::max() : 1;
  std::pair<std::size_t, std::size_t> best{};
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    for (std::size_t j = i + 1; j < buckets.size(); ++j) {
      const Bucket &a = buckets[i], &b = buckets[j];
      const std::int64_t more =
          padded(a.pairs.size() + b.pairs.size(), largest(a.bounds, b.bounds)) -
          padded(a.pairs.size(), a.bounds) - padded(b.pairs.size(), b.bounds);
      if (more < least) {
        least = more;
        best = {i, j};
      }
    }
  }
  if (best.second == 0) return false;
  Bucket& to = buckets[best.first];
  const auto from = buckets.begin() + static_cast<std::ptrdiff_t>(best.second);
  to.bounds = largest(to.bounds, from->bounds);
  to.pairs.insert(to.pairs.end(), from->pairs.begin(), from->pairs.end());
  buckets.erase(from);
  return true;
}

void PairPlan::sort_into_buckets(const std::vector<Pair>& found) {
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::size_t>> by_bounds;
  for (std::size_t i = 0; i < found.size(); ++i) {
    by_bounds[{bound_of(found[i].source.steps, longest_.source),
               bound_of(found[i].target.steps, longest_.target)}]
        .push_back(i);
  }
  std::vector<Bucket> buckets;
  for (auto& [bounds, pairs] : by_bounds) {
    buckets.push_back({{bounds.first, bounds.second}, std::move(pairs)});
  }
  while (join_two(buckets)) continue;
  std::sort(buckets.begin(), buckets.end(), [](const Bucket& a, const Bucket& b) {
    return std::pair(a.bounds.source, a.bounds.target) <
           std::pair(b.bounds.source, b.bounds.target);
  });
  std::vector<BucketOrder::Bucket> sizes;
  pairs_.reserve(found.size());
  for (Bucket& bucket : buckets) {
    std::sort(bucket.pairs.begin(), bucket.pairs.end());
    for (const std::size_t i : bucket.pairs) pairs_.push_back(found[i]);
    bounds_.push_back(bucket.bounds);
    sizes.push_back({std::ssize(bucket.pairs), all_rows(bucket.bounds)});
  }
  order_ = BucketOrder(sizes, options_.shuffle, options_.seed);
}

BatchLimits PairPlan::limits() const {
  BatchLimits limits;
  Bounds places;
  for (const Bounds& bounds : bounds_) {
    const std::int64_t rows = rows_of(bounds);
    limits.rows = std::max(limits.rows, rows);
    places = largest(places, {rows * bounds.source, rows * bounds.target});
  }
  const auto add = [&](const char* name, std::int64_t steps, std::int64_t most) {
    limits.fields.push_back({.name = name, .steps = steps, .lengths = true, .places = most});
  };
  add("source", longest_.source, places.source);
  if (paired()) {
    add("token", longest_.target, places.target);
    add("target", longest_.target, places.target);
  }
  if (numbered()) limits.fields.push_back({.name = "number"});
  return limits;
}

void PairPlan::fill(const DataPosition& position, HostBatch& batch) {
  const BucketOrder::Items items = order_.batch(position);
  const Bounds& bounds = bounds_[items.bucket];
  batch.fields[0].steps = bounds.source;
  if (paired()) batch.fields[1].steps = batch.fields[2].steps = bounds.target;
  batch.counted = 0;
  batch.rows = rows_of(bounds);
  const std::int64_t first = options_.share.rank * batch.rows;
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    const std::int64_t item = items.at(first + row);
    fill_row(row, item < 0 ? nullptr : &pairs_[static_cast<std::size_t>(item)], batch);
  }
}

void PairPlan::fill_row(std::int64_t row, const Pair* pair, HostBatch& batch) {
  const auto fill_steps = [&](HostField& field, std::int64_t steps, std::size_t shift,
                              std::int32_t padding) {
    field.lengths[row] = static_cast<std::int32_t>(steps);
    for (std::int64_t t = 0; t < field.steps; ++t) {
      field.ids()[t * batch.rows + row] =
          t < steps ? read_[static_cast<std::size_t>(t) + shift] : padding;
    }
  };
  const auto read = [&](const TokenRange& tokens, const Span& line) {
    if (pair != nullptr) tokens.read(line.start, line.steps + 1, read_.data());
    return line.steps;
  };
  static constexpr Pair kNothing{};
  const Pair& filled = pair == nullptr ? kNothing : *pair;
  fill_steps(batch.fields[0], read(lines_.sources, filled.source), 1, 0);
  if (paired()) {
    const std::int64_t steps = read(*lines_.targets, filled.target);
    fill_steps(batch.fields[1], steps, 0, 0);
    fill_steps(batch.fields[2], steps, 1, GatherWindows::kNoTarget);
  }
  if (numbered()) {
    batch.fields.back().ids()[row] =
        pair == nullptr ? kNoExample : static_cast<std::int32_t>(pair->number);
  }
  if (pair != nullptr) batch.counted += paired() ? pair->target.steps : 1;
}

}  // namespace carousel
