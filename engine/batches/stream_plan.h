#pragma once

#include <cstdint>
#include <vector>

#include "engine/batches/batch_plan.h"

namespace carousel {

/// How a stream is cut into rows and windows.
struct StreamLayout {
  std::int64_t all_rows = 0;             ///< that the stream is cut into
  std::int64_t first_row = 0, rows = 0;  ///< of these, this process's
  std::int64_t window = 0;
  std::int64_t stride = 0;   ///< from a row's first token to the next row's
  std::int64_t longer = 0;   ///< of all rows, the first ones that are longer by one in both
  std::int64_t targets = 0;  ///< of a row, without that one
  std::int64_t slack = 0;    ///< tokens at the start that an epoch may leave out

  // Rows are counted from first_row.
  std::int64_t start(std::int64_t row) const;       ///< the row's first token, nothing left out
  std::int64_t targets_of(std::int64_t row) const;  ///< how many targets the row has
  std::int64_t windows() const;                     ///< of the longest row of all
  std::int64_t steps(std::int64_t index) const;     ///< T of a window: the last may be shorter
  std::int64_t all_targets() const { return all_rows * targets + longer; }
};

/// Errors as stream_batches() and evaluation_batches() say.
StreamLayout training_layout(const TokenRange& tokens, const StreamOptions& options);
StreamLayout evaluation_layout(const TokenRange& tokens, const StreamOptions& options);

/// How many tokens the epoch leaves out: a function of seed and epoch, 0 … layout.slack.
std::int64_t epoch_start(const StreamLayout& layout, std::uint64_t seed, std::int64_t epoch);

/// Windows read from the token file; the same as GatherWindows makes of a stream on the device.
class StreamPlan final : public BatchPlan {
 public:
  StreamPlan(const TokenRange& tokens, const StreamLayout& layout, const StreamOptions& options);
  BatchLimits limits() const override;
  std::int64_t batches_per_epoch() const override { return layout_.windows(); }
  std::int64_t counted_per_epoch() const override { return layout_.all_targets(); }
  bool is_first(std::int64_t index) const override { return index == 0; }
  void fill(const DataPosition& position, HostBatch& batch) override;

 private:
  void fill_row(std::int64_t row, const DataPosition& position, HostBatch& batch);
  TokenRange tokens_;
  StreamLayout layout_;
  StreamOptions options_;
  std::vector<std::int32_t> read_;  ///< the tokens of a row's window, and one on either side
};

}  // namespace carousel
