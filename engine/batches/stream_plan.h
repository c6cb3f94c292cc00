#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/batches/batch_plan.h"
#include "kernels/common/random.h"

namespace carousel {

/// How a stream is cut into rows and windows.
struct StreamLayout {
  std::int64_t all_rows = 0;             ///< that the stream is cut into
  std::int64_t first_row = 0, rows = 0;  ///< of these, this process's
  std::int64_t window = 0;
  std::int64_t overlap = 0;  ///< of a window with the one before it
  std::int64_t stride = 0;   ///< from a row's first token to the next row's
  std::int64_t longer = 0;   ///< so many first rows have a stride and targets larger by one
  std::int64_t targets = 0;  ///< of each other row
  std::int64_t slack = 0;    ///< tokens at the start that an epoch may leave out

  // Rows are counted from first_row.
  std::int64_t start(std::int64_t row) const;       ///< the row's first token, nothing left out
  std::int64_t targets_of(std::int64_t row) const;  ///< how many targets the row has
  std::int64_t longest() const { return targets + (longer > 0 ? 1 : 0); }  ///< row of all
  std::int64_t all_targets() const { return all_rows * targets + longer; }
};

/// Errors as stream_batches() and evaluation_batches() say.
StreamLayout training_layout(const TokenRange& tokens, const StreamOptions& options);
StreamLayout evaluation_layout(const TokenRange& tokens, const StreamOptions& options);

/// How many tokens the epoch leaves out: a function of seed and epoch, 0 … layout.slack.
std::int64_t epoch_start(const StreamLayout& layout, std::uint64_t seed, std::int64_t epoch);

/// Draws which rows restart where a window begins.
class RowRestarts {
 public:
  explicit RowRestarts(const StreamOptions& options);
  bool drawing() const { return probability_ > 0; }
  /// `row` is counted from the first of all.
  bool at(const DataPosition& position, std::int64_t row) const;

 private:
  double probability_;
  RandomSource random_;
};

/// How an epoch is cut into windows, by one length or by drawn ones. Any thread may ask.
class StreamWindows {
 public:
  StreamWindows(const StreamLayout& layout, const StreamOptions& options);

  struct Window {
    std::int64_t begin = 0, steps = 0;  ///< from a row's start; T, less where the longest row ends
    std::int64_t again = 0;             ///< so many first steps were in the window before
    double learning_rate_factor = 1;
  };
  Window at(const DataPosition& position) const;
  std::int64_t in(std::int64_t epoch) const;               ///< how many
  std::int64_t most_steps() const { return most_steps_; }  ///< of any window

 private:
  using Begins = std::vector<std::int64_t>;  ///< of an epoch's windows, and where the last one ends
  std::shared_ptr<const Begins> begins(std::int64_t epoch) const;
  bool drawing() const { return deviation_ > 0 || halving_ > 0; }
  std::int64_t drawn_steps(const DataPosition& position) const;

  std::int64_t window_, advance_, longest_, most_steps_;
  double deviation_, halving_;
  RandomSource random_;
  mutable std::mutex mutex_;  ///< guards drawn_
  /// Of the epochs asked for last: reading ahead is in one epoch, training in the one before.
  mutable std::map<std::int64_t, std::shared_ptr<const Begins>> drawn_;
};

/// Windows read from the token file; the same as GatherWindows makes of a stream on the device.
class StreamPlan final : public BatchPlan {
 public:
  StreamPlan(const TokenRange& tokens, const StreamLayout& layout, const StreamOptions& options);
  BatchLimits limits() const override;
  std::int64_t batches_in(std::int64_t epoch) const override { return windows_.in(epoch); }
  std::int64_t counted_per_epoch() const override { return layout_.all_targets(); }
  bool is_first(std::int64_t index) const override { return index == 0; }
  void fill(const DataPosition& position, HostBatch& batch) override;

 private:
  void fill_row(std::int64_t row, const DataPosition& position, const StreamWindows::Window& window,
                HostBatch& batch);
  TokenRange tokens_;
  StreamLayout layout_;
  StreamOptions options_;
  StreamWindows windows_;
  RowRestarts restarts_;
  std::vector<std::int32_t> read_;  ///< the tokens of a row's window, and one on either side
};

}  // namespace carousel
