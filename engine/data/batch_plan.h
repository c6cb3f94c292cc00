#pragma once

#include <cstdint>
#include <memory>

#include "engine/data/batches.h"

namespace carousel {

/// What all batches of a source fit into.
struct BatchLimits {
  std::int64_t steps = 0;  ///< largest T
  std::int64_t rows = 0;   ///< B
  bool resets = false, lengths = false;
};

/// Where a plan writes a batch: room for the limits' T in host memory. Row-major, as in Batch.
struct HostBatch {
  std::int32_t* token = nullptr;
  std::int32_t* target = nullptr;
  std::int32_t* reset = nullptr;    ///< null unless the limits say resets
  std::int32_t* lengths = nullptr;  ///< null unless the limits say lengths
  std::int64_t steps = 0;           ///< out: T of this batch
  std::int64_t tokens = 0;          ///< out
};

/// Which tokens make up which batch. Called by one thread at a time, for any position in any
/// order.
class BatchPlan {
 public:
  virtual ~BatchPlan() = default;
  virtual BatchLimits limits() const = 0;
  virtual std::int64_t batches_per_epoch() const = 0;
  virtual std::int64_t tokens_per_epoch() const = 0;
  virtual bool is_first(std::int64_t index) const = 0;  ///< Batch::first
  virtual void fill(const DataPosition& position, HostBatch& batch) = 0;
};

/// The position of the batch after this one.
inline DataPosition after(const DataPosition& position, std::int64_t batches_per_epoch) {
  if (position.index + 1 < batches_per_epoch) return {position.epoch, position.index + 1};
  return {position.epoch + 1, 0};
}

/// FormatError unless it is a position among epochs of so many batches.
void expect_position(const DataPosition& position, std::int64_t batches_per_epoch);

/// Batches that a thread fills ahead, in pinned memory, and that are copied to the device.
std::unique_ptr<BatchSource> prefetched(const Device& device, std::unique_ptr<BatchPlan> plan);

}  // namespace carousel
