#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/batches/batches.h"

namespace carousel {

/// The bound of lengths after this one: `step` more, or about a quarter where that is more, so that
/// there are few bounds for long texts and little padding for short ones. A multiple of `step`: of 8,
/// the bounds are 8, 16, … 40, 56, 72.
std::int64_t bound_after(std::int64_t bound, std::int64_t step);

/// Items that lie bucket by bucket, in batches of which each has items of one bucket. Shuffled, each
/// epoch has its own order within the buckets and of the batches; otherwise the order is that of the
/// items. What it gives follows from the options and the position alone.
class BucketOrder {
 public:
  struct Bucket {
    std::int64_t items = 0;  ///< at least one
    std::int64_t rows = 1;   ///< items of a batch; the last batch may have fewer
  };
  /// The items of one batch.
  struct Items {
    std::size_t bucket = 0;
    std::span<const std::int64_t> numbers;  ///< valid until the next call of batch()
    /// The number of the i-th, or −1 where there are fewer.
    std::int64_t at(std::int64_t i) const {
      return i < std::ssize(numbers) ? numbers[static_cast<std::size_t>(i)] : -1;
    }
  };
  BucketOrder() = default;
  BucketOrder(std::span<const Bucket> buckets, bool shuffle, std::uint64_t seed);

  std::int64_t batches() const { return std::ssize(unmixed_); }
  Items batch(const DataPosition& position);

 private:
  struct Group {  ///< items [first, first + count) of the order
    std::size_t bucket = 0;
    std::int64_t first = 0, count = 0;
  };
  void arrange(std::int64_t epoch);

  bool shuffle_ = false;
  std::uint64_t seed_ = 1;
  std::int64_t items_ = 0;
  std::vector<Group> buckets_, unmixed_;  ///< the batches, bucket by bucket

  std::int64_t arranged_ = -1;       ///< the epoch that the following two are for
  std::vector<std::int64_t> order_;  ///< of the items, mixed within each bucket
  std::vector<Group> batches_;       ///< unmixed_, mixed
};

}  // namespace carousel
