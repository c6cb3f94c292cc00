#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "kernels/common/view.h"

namespace carousel {

/// The widest head that the attention ops take.
inline constexpr std::int64_t kMostHeadWidth = 256;

/// Heads side by side in the rows of [T, B, W]: element d of head a at step t of row b is in column
/// first + a·D + d. Queries, keys and values may so lie in the same rows.
template <class T>
struct HeadRows {
  View<T, 3> rows{};       ///< [T, B, W]
  std::int64_t first = 0;  ///< the column of head 0

  constexpr HeadRows() = default;
  constexpr HeadRows(View<T, 3> all, std::int64_t column = 0) : rows(all), first(column) {}
  template <class U>
  requires(std::is_same_v<const U, T>) constexpr HeadRows(const HeadRows<U>& other)
      : rows(other.rows), first(other.first) {}

  constexpr bool present() const { return rows.present(); }
  constexpr std::int64_t steps() const { return rows.extent[0]; }
  constexpr std::int64_t batch() const { return rows.extent[1]; }
  /// Elements from one step to the next of the same row.
  constexpr std::int64_t stride() const { return rows.extent[1] * rows.extent[2]; }
  /// The first element of a head of row b at step 0.
  constexpr T* head(std::int64_t b, std::int64_t a, std::int64_t head_width) const {
    return rows.data + b * rows.extent[2] + first + a * head_width;
  }
};

/// Where the gradient of such heads is written, or added.
template <class T>
struct HeadGradient {
  HeadRows<T> rows{};
  bool accumulate = false;

  constexpr bool present() const { return rows.present(); }
};

/// Which heads there are and which keys a query sees. Query head a reads the keys and values of head
/// a / (heads / kv_heads).
struct AttentionRule {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 0;    ///< a divisor of heads; 0: as many
  std::int64_t head_width = 0;  ///< D
  bool causal = false;          ///< position p sees positions s ≤ p
  std::int64_t window = 0;      ///< and, unless 0, s > p − window; of causal attention only
  float scale = 0;              ///< of q·k; 0: 1/√D

  constexpr std::int64_t groups() const { return kv_heads == 0 ? heads : kv_heads; }
  constexpr std::int64_t group_of(std::int64_t head) const { return head / (heads / groups()); }
  double factor() const {
    return scale != 0 ? static_cast<double>(scale)
                      : 1.0 / std::sqrt(static_cast<double>(head_width));
  }
  /// The keys that position p sees of `keys` are first_key(p) ≤ s < end_key(p, keys).
  constexpr std::int64_t first_key(std::int64_t p) const {
    return causal && window != 0 && p >= window ? p - window + 1 : 0;
  }
  constexpr std::int64_t end_key(std::int64_t p, std::int64_t keys) const {
    return causal && p + 1 < keys ? p + 1 : keys;
  }
};

/// Where [A or 1, Tq, Tk] has the scores' bias of head a and query t with key 0.
template <class A>
constexpr const A* bias_of(const View<const A, 3>& bias, std::int64_t a, std::int64_t t) {
  return bias.data + ((bias.extent[0] == 1 ? 0 : a) * bias.extent[1] + t) * bias.extent[2];
}

/// How many of `most` steps row b has: length[b] within 0 … most; all where length is absent.
constexpr std::int64_t steps_of(View<const std::int32_t, 1> length, std::int64_t b,
                                std::int64_t most) {
  if (!length.present()) return most;
  const std::int64_t own = length(b);
  return own < 0 ? 0 : own < most ? own : most;
}

/// ConfigError or ShapeError, beginning with the op's name, unless the rule is one that the contracts
/// of the attention ops allow.
void check_rule(const char* op, const AttentionRule& rule);

/// ShapeError "<what> steps is …" unless rows of `extent` [T, B, W] are those of `want` [T, B, W'] and
/// hold W' columns from `first` on. `what` begins with the op's name.
void expect_heads(const std::string& what, const std::array<std::int64_t, 3>& extent,
                  std::int64_t first, const std::array<std::int64_t, 3>& want);

}  // namespace carousel
