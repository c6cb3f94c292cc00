#pragma once

#include <cstdint>
#include <vector>

#include "engine/batches/batch_plan.h"

namespace carousel {

/// Windows over rows of lines that follow one another: packed_batches().
class PackedPlan final : public BatchPlan {
 public:
  PackedPlan(const TokenRange& tokens, const TokenRange& lengths, const PackedOptions& options);
  BatchLimits limits() const override;
  std::int64_t batches_in(std::int64_t) const override { return batches_; }
  std::int64_t counted_per_epoch() const override { return counted_; }
  bool is_first(std::int64_t index) const override { return index == 0; }
  void fill(const DataPosition& position, HostBatch& batch) override;

 private:
  struct Line {
    std::int64_t start = 0, count = 0;  ///< its tokens
    std::int64_t step = 0;              ///< of its row, where it begins
    std::int64_t question = 0;          ///< so many first targets do not count
    std::int64_t end() const { return step + count; }
  };
  std::vector<Line> find_lines(const TokenRange& lengths) const;
  std::int64_t step_for(const Line& line, std::int64_t step) const;
  void sort_into_rows(std::vector<Line> lines);
  void fill_row(std::int64_t row, std::int64_t first_step, HostBatch& batch);

  TokenRange tokens_;
  PackedOptions options_;
  std::vector<std::vector<Line>> rows_;
  std::int64_t batches_ = 0, counted_ = 0;
  std::vector<std::int32_t> read_;  ///< a line's tokens in a window, and one on either side
};

}  // namespace carousel
