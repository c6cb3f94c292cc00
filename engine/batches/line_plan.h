#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/batches/batch_plan.h"
#include "engine/batches/bucket_order.h"

namespace carousel {

/// What a LinePlan reads.
struct Lines {
  TokenRange tokens{};
  bool next_token = true;              ///< field "target", one step shorter than the line
  std::optional<TokenRange> labels{};  ///< field "label": one id a line
};

/// Batches of whole lines, grouped by length and shuffled: line_batches() and labelled_batches().
class LinePlan final : public BatchPlan {
 public:
  LinePlan(Lines lines, const LineOptions& options);
  BatchLimits limits() const override;
  std::int64_t batches_in(std::int64_t) const override { return order_.batches(); }
  std::int64_t counted_per_epoch() const override { return counted_; }
  bool is_first(std::int64_t) const override { return true; }
  void fill(const DataPosition& position, HostBatch& batch) override;

 private:
  struct Line {
    std::int64_t start = 0;     ///< its <bos>
    std::int64_t steps = 0;     ///< tokens that are read
    std::int64_t number = 0;    ///< in the text
    std::int64_t question = 0;  ///< so many first targets do not count; −1: not known yet
  };
  std::vector<Line> find_lines() const;
  void expect_answers(const std::vector<Line>& found) const;
  std::int64_t counted_of(const Line& line) const {
    return lines_read_.next_token ? line.steps - line.question : 1;
  }
  void sort_into_buckets(const std::vector<Line>& found);
  void fill_row(std::int64_t row, const Line* line, HostBatch& batch);
  bool numbered() const { return !lines_read_.next_token && !options_.shuffle; }

  Lines lines_read_;
  LineOptions options_;
  std::int64_t all_rows_;             ///< of a batch, of all processes
  std::vector<Line> lines_;           ///< by bucket, then as in the text
  std::vector<std::int64_t> bounds_;  ///< of the buckets
  BucketOrder order_;                 ///< of lines_
  std::int64_t counted_ = 0, longest_ = 0;
  std::vector<std::int32_t> read_;
};

}  // namespace carousel
