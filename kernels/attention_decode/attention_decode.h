#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention/heads.h"
#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"

namespace carousel {

/// Attention of the T newest tokens of each row, for generation: causal attention over the tokens
/// that the row had before, which a cache holds, and over the new ones themselves.
///
/// Row b had position[b] = P tokens. Its new ones, n[b] = min(max(length[b], 0), T) or T where
/// length is absent, have positions P … P + n[b] − 1. The cache is a ring of C places: the key and the
/// value of position s are in place s mod C. Query t sees the positions s with
///
///     s ≤ P + t,    s > P + t − C,    s ≥ 0,    and, if rule has a window, s > P + t − window
///
/// and takes them from the cache if s < P, and from k and v, at step s − P, if not. So the cache is
/// read as it was before these tokens, and append_to_cache() after this op; with T > 1 the other order
/// would overwrite keys that the first of the new queries still see.
///
/// Values   y of steps t ≥ n[b] is 0. A position below 0 counts as 0. Places of the cache that no
///          visible position has, and new keys and values at t ≥ n[b], may hold anything and are not
///          used.
/// Errors   ShapeError if extents disagree, C == 0, D is not in [1, 256] or scratch is too small;
///          ConfigError as kernels/attention/attention.h says. rule.causal is taken as true. B == 0
///          or T == 0 does nothing.
/// Accuracy within kAttentionForwardTolerance of kernels/attention for |q|, |k|, |v| ≤ 1. T tokens at once
///          give the values of T single steps to that tolerance. The order of all sums is fixed.
/// Memory   reads the visible part of the cache once for each query and head.
///          On CUDA a row's cache is split over blocks, whose parts scratch holds and a second kernel
///          combines in order.
/// Source   as attention; the split: Dao, Haziza, Massa & Sizov 2023, "Flash-Decoding for long-context
///          inference", pytorch.org/blog/flash-decoding.
template <class T>
struct AttentionDecode {
  HeadRows<const T> q;                   ///< [T, B, A·D]
  HeadRows<const T> k, v;                ///< [T, B, Akv·D] of the new tokens
  View<const T, 3> cache_k, cache_v;     ///< [C, B, Akv·D]
  View<const std::int64_t, 1> position;  ///< [B] tokens that each row had before
  View<const std::int32_t, 1> length{};  ///< [B] new tokens of each row; absent: T each
  AttentionRule rule;
  HeadRows<T> y;                 ///< [T, B, A·D] out
  View<std::byte, 1> scratch{};  ///< scratch_bytes(device, op), aligned to 4
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;
};

/// Stores the keys and values of new tokens: for t < n[b], with n and P as above,
///
///     cache_k[(P + t) mod C, b] = k[t, b],    cache_v[(P + t) mod C, b] = v[t, b]
///
/// Values   bits are copied. If n[b] > C, the last C tokens are stored. Other places are left.
/// Errors   ShapeError if extents disagree or C == 0. B == 0 or T == 0 does nothing.
/// Accuracy exact.
/// Memory   reads and writes what it stores once.
template <class T>
struct AppendToCache {
  HeadRows<const T> k, v;                ///< [T, B, W] from their first column on
  std::int64_t width = 0;                ///< W: Akv·D
  View<const std::int64_t, 1> position;  ///< [B]
  View<const std::int32_t, 1> length{};  ///< [B]
  View<T, 3> cache_k, cache_v;           ///< [C, B, W] in and out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
