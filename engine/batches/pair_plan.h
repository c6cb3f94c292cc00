#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/batches/batch_plan.h"
#include "engine/batches/bucket_order.h"

namespace carousel {

/// Two texts of lines (Newline::line); line i of the one belongs to line i of the other.
struct PairedLines {
  TokenRange sources{};
  std::optional<TokenRange> targets{};  ///< absent: sources alone, to predict from
};

/// One pair a row, every batch with a fresh state: "source", the tokens up to <eos>, without <bos>;
/// "token", from <bos> on, without <eos>; "target", the token after each. Of `options`, answer_after
/// means nothing. Without targets there are "source" and "number" alone; otherwise "number" is there
/// if the order is unshuffled.
///
/// Pairs whose lengths are similar on both sides share a batch. Each side is padded to a bound (2,
/// 4, 6, 8, 10, 12, 16, then a quarter more each time; at most the longest). Buckets are joined, and
/// padded to the larger bounds, wherever that leaves no more padding in all, that of the rows that
/// fill up a bucket's last batch too, and until they are 48 at most. Padding has token 0 and target
/// −1. An epoch has every pair once. Unshuffled, the order is by bucket and then that of the text.
///
/// With LineOptions::tokens the batches of a bucket have B = max(1, ⌊tokens / larger bound⌋) rows.
///
/// Memory   48 bytes of the host's a pair.
/// Errors   ConfigError for B below 1. FormatError for tokens that do not begin with <bos>, and
///          unless there are as many targets as sources.
std::unique_ptr<BatchSource> paired_batches(const Device& device, PairedLines pairs,
                                            const LineOptions& options);

/// The plan of these batches.
class PairPlan final : public BatchPlan {
 public:
  PairPlan(PairedLines pairs, const LineOptions& options);
  BatchLimits limits() const override;
  std::int64_t batches_in(std::int64_t) const override { return order_.batches(); }
  std::int64_t counted_per_epoch() const override { return counted_; }
  bool is_first(std::int64_t) const override { return true; }
  void fill(const DataPosition& position, HostBatch& batch) override;

 private:
  struct Span {  ///< a line's <bos> is at `start`; `steps` tokens follow it
    std::int64_t start = 0, steps = 0;
  };
  struct Pair {
    Span source, target;
    std::int64_t number = 0;  ///< in the text
  };
  struct Bounds {
    std::int64_t source = 0, target = 0;
  };
  struct Bucket {
    Bounds bounds;
    std::vector<std::size_t> pairs;
  };
  static Bounds largest(const Bounds& a, const Bounds& b) {
    return {std::max(a.source, b.source), std::max(a.target, b.target)};
  }
  std::vector<Span> lines_of(const TokenRange& tokens) const;
  std::vector<Pair> find_pairs() const;
  std::int64_t rows_of(const Bounds& bounds) const;  ///< B of this process
  std::int64_t all_rows(const Bounds& bounds) const { return world_ * rows_of(bounds); }
  std::int64_t padded(std::size_t pairs, const Bounds& bounds) const;
  bool join_two(std::vector<Bucket>& buckets) const;
  void sort_into_buckets(const std::vector<Pair>& found);
  void fill_row(std::int64_t row, const Pair* pair, HostBatch& batch);
  bool paired() const { return lines_.targets.has_value(); }
  bool numbered() const { return !paired() || !options_.shuffle; }

  PairedLines lines_;
  LineOptions options_;
  std::int64_t world_;          ///< processes
  std::vector<Pair> pairs_;     ///< by bucket, then as in the text
  std::vector<Bounds> bounds_;  ///< of the buckets
  BucketOrder order_;           ///< of pairs_
  std::int64_t counted_ = 0;
  Bounds longest_;
  std::vector<std::int32_t> read_;
};

}  // namespace carousel
