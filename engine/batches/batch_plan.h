#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/batches/batches.h"

namespace carousel {

/// The largest shape of one field over all batches: [T, B] of a sequence, [B] otherwise; with a
/// width F, [T, B, F] and [B, F].
struct FieldLimits {
  std::string name;
  std::int64_t steps = 0;  ///< largest T; 0: not a sequence
  bool lengths = false;    ///< rows have lengths
  DType dtype = DType::i32;
  std::int64_t width = 0;   ///< F; 0: none
  std::int64_t places = 0;  ///< largest T·B, where B is less when T is more; 0: T·B of the limits

  Shape shape(std::int64_t rows) const { return shape(steps, rows); }
  Shape shape(std::int64_t steps, std::int64_t rows) const;  ///< steps mean nothing to no sequence
  std::int64_t most(std::int64_t rows) const;                ///< elements to have room for
};

struct BatchLimits {
  std::int64_t rows = 0;  ///< largest B
  std::vector<FieldLimits> fields{};
  std::int64_t reset_steps = 0;  ///< largest T of Batch::reset; 0: there is none
};

/// Where a plan writes a field: room in host memory for the limits' T. Row-major, as in Batch.
struct HostField {
  void* values = nullptr;
  std::int32_t* lengths = nullptr;  ///< null unless the limits say lengths
  std::int64_t steps = 0;  ///< out: T in this batch; unused by fields that are no sequences

  template <class T>
  T* as() const {
    return static_cast<T*>(values);
  }
  std::int32_t* ids() const { return as<std::int32_t>(); }
};

struct HostBatch {
  std::vector<HostField> fields;    ///< as in the limits
  HostField reset;                  ///< values are null unless the limits say reset_steps
  std::int64_t rows = 0;            ///< out: B; of the limits unless a plan sets it
  std::int64_t counted = 0;         ///< out
  double learning_rate_factor = 1;  ///< out
};

/// Decides which tokens are in which batch. fill() is called by one thread at a time, for positions in
/// any order; the others by any thread.
class BatchPlan {
 public:
  virtual ~BatchPlan() = default;
  virtual BatchLimits limits() const = 0;
  virtual std::int64_t batches_in(std::int64_t epoch) const = 0;
  virtual std::int64_t counted_per_epoch() const = 0;
  virtual bool is_first(std::int64_t index) const = 0;  ///< Batch::first
  virtual void fill(const DataPosition& position, HostBatch& batch) = 0;
};

/// The position of the batch after this one.
inline DataPosition after(const DataPosition& position, std::int64_t batches_per_epoch) {
  if (position.index + 1 < batches_per_epoch) return {position.epoch, position.index + 1};
  return {position.epoch + 1, 0};
}

/// FormatError for a position that epochs of so many batches do not have.
void expect_position(const DataPosition& position, std::int64_t batches_per_epoch);

/// A source that copies a plan's batches to the device. A thread fills them ahead, in pinned
/// memory.
std::unique_ptr<BatchSource> prefetched(const Device& device, std::unique_ptr<BatchPlan> plan);

}  // namespace carousel
