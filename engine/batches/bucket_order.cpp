#include "engine/batches/bucket_order.h"

#include <algorithm>
#include <numeric>

#include "engine/batches/draws.h"

namespace carousel {
namespace {

// Distinct from the random streams of all masks.
constexpr std::uint64_t kShuffleStream = 0xDA7A'0000'0002U;

}  // namespace

std::int64_t bound_after(std::int64_t bound, std::int64_t step) {
  return (bound + std::max(step, bound / 4) + step - 1) / step * step;
}

BucketOrder::BucketOrder(std::span<const Bucket> buckets, bool shuffle, std::uint64_t seed)
    : shuffle_(shuffle), seed_(seed) {
  for (const auto& [items, rows] : buckets) {
    const std::size_t bucket = buckets_.size();
    buckets_.push_back({bucket, items_, items});
    for (std::int64_t i = 0; i < items; i += rows) {
      unmixed_.push_back({bucket, items_ + i, std::min(rows, items - i)});
    }
    items_ += items;
  }
}

void BucketOrder::arrange(std::int64_t epoch) {
  if (arranged_ == epoch || (arranged_ >= 0 && !shuffle_)) return;
  arranged_ = epoch;
  // Shuffles the unmixed order, not that of the epoch before, so that seek() reaches any epoch at
  // once.
  order_.resize(static_cast<std::size_t>(items_));
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  batches_ = unmixed_;
  if (!shuffle_) return;
  Draws draws({.seed = seed_, .stream = kShuffleStream}, epoch);
  for (const Group& bucket : buckets_) {
    shuffle(std::span(order_).subspan(static_cast<std::size_t>(bucket.first),
                                      static_cast<std::size_t>(bucket.count)),
            draws);
  }
  shuffle(std::span(batches_), draws);
}

BucketOrder::Items BucketOrder::batch(const DataPosition& position) {
  arrange(position.epoch);
  const Group& group = batches_[static_cast<std::size_t>(position.index)];
  return {.bucket = group.bucket,
          .numbers = std::span(order_).subspan(static_cast<std::size_t>(group.first),
                                               static_cast<std::size_t>(group.count))};
}

}  // namespace carousel
