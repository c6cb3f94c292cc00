#pragma once

#include <cstdint>

#include "kernels/attention_decode/attention_decode.h"

namespace carousel::attention_decode {

/// The new tokens of one row and the positions that one of its queries sees.
struct RowOfCache {
  std::int64_t before, added, places;

  template <class Op>
  constexpr RowOfCache(const Op& op, std::int64_t b)
      : before(op.position(b) > 0 ? op.position(b) : 0),
        added(steps_of(op.length, b, op.k.steps())),
        places(op.cache_k.extent[0]) {}

  /// The first position that query t sees; the last is before + t.
  constexpr std::int64_t first(const AttentionRule& rule, std::int64_t t) const {
    const std::int64_t most = seen_at_most(rule, places), from = before + t - most + 1;
    return from > 0 ? from : 0;
  }
  static constexpr std::int64_t seen_at_most(const AttentionRule& rule, std::int64_t places) {
    return rule.window > 0 && rule.window < places ? rule.window : places;
  }
};

/// Where the key, or the value, of a position lies: the cache's of the row, or a new one.
template <class T>
struct Entries {
  const T *cache, *added;
  std::int64_t cache_stride, added_stride, before, places;

  constexpr Entries(const View<const T, 3>& ring, const HeadRows<const T>& fresh,
                    const RowOfCache& row, std::int64_t b, std::int64_t first_column)
      : cache(ring.data + b * ring.extent[2] + first_column),
        added(fresh.rows.data + b * fresh.rows.extent[2] + fresh.first + first_column),
        cache_stride(ring.extent[1] * ring.extent[2]),
        added_stride(fresh.stride()),
        before(row.before),
        places(row.places) {}

  constexpr const T* at(std::int64_t position) const {
    return position < before ? cache + position % places * cache_stride
                             : added + (position - before) * added_stride;
  }
};

}  // namespace carousel::attention_decode
