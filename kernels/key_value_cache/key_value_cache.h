#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/view.h"

namespace carousel {

/// Stores the keys and values of new tokens in a ring of C places, for generation. Row b had
/// P = position[b] tokens before, and has n = length[b] of the T new ones, its first:
///
///     k[(P + t) mod C, b, i] = x[t, b, first_k + i],    v[(P + t) mod C, b, i] = x[t, b, first_v + i]
///     used[b] = min(P + n, C)
///
/// for 0 ≤ i < W and t < n, of which the last C are stored where n > C.
///
/// Values   absent lengths are T; a length is taken as between 0 and T. Other places are left. P ≥ 0.
/// Errors   ShapeError if the extents disagree, the columns are not those of x, or C == 0. T == 0 and
///          B == 0 store nothing.
/// Accuracy exact: a copy.
/// Memory   reads and writes what it stores once.
template <class T>
struct StoreKeysAndValues {
  View<const T, 3> x;                     ///< [T, B, columns]
  std::int64_t first_k = 0, first_v = 0;  ///< columns of x
  View<const std::int64_t, 1> position;   ///< [B]
  View<const std::int32_t, 1> length{};   ///< [B]
  View<T, 3> k, v;                        ///< [C, B, W] out
  View<std::int32_t, 1> used;             ///< [B] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  constexpr std::int64_t steps(std::int64_t b) const {
    const std::int64_t all = x.extent[0];
    if (!length.present() || length(b) > all) return all;
    return length(b) < 0 ? 0 : length(b);
  }
  /// Where step t of row b is stored; −1: nowhere.
  constexpr std::int64_t place(std::int64_t t, std::int64_t b) const {
    const std::int64_t n = steps(b), places = k.extent[0];
    return t < n && t >= n - places ? (position(b) + t) % places : -1;
  }
  constexpr std::int32_t used_after(std::int64_t b) const {
    const std::int64_t all = position(b) + steps(b), places = k.extent[0];
    return static_cast<std::int32_t>(all < places ? all : places);
  }
};

}  // namespace carousel
