#pragma once

#include <limits>

#include "kernels/adaptive_softmax/adaptive_softmax.h"
#include "kernels/cross_entropy/cross_entropy.h"

// Where a target belongs, for both devices.
namespace carousel::adaptive_softmax {

constexpr std::int32_t head_target(const AdaptiveCutoffs& cutoffs, std::int32_t word) {
  if (word == kIgnoreTarget || (word >= 0 && word < cutoffs.shortlist())) return word;
  if (!in_vocabulary(word, cutoffs.vocabulary())) {
    return std::numeric_limits<std::int32_t>::max();  // outside every head: a loss of NaN
  }
  std::int64_t entry = cutoffs.head() - 1;
  for (int k = cutoffs.clusters - 1; word < cutoffs.first(k); --k) --entry;
  return static_cast<std::int32_t>(entry);
}

/// Row n is the m-th of cluster k.
template <class A>
constexpr void put(const AdaptiveRoute<A>& op, int k, std::int64_t n, std::int32_t m) {
  op.row(k, m) = static_cast<std::int32_t>(n);
  op.local(k, m) = static_cast<std::int32_t>(op.target(n) - op.cutoffs.first(k));
  op.place(k, n) = m;
}

/// Cluster k has no m-th row.
template <class A>
constexpr void put_none(const AdaptiveRoute<A>& op, int k, std::int64_t m) {
  op.row(k, m) = -1;
  op.local(k, m) = kIgnoreTarget;
}

}  // namespace carousel::adaptive_softmax
