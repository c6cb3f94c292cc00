#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/view.h"

namespace carousel {

/// Sets every element: to[n] = value.
///
/// T is any element type of a tensor. Memory: writes `to` once.
template <class T>
struct Fill {
  View<T, 1> to;  ///< [N] out
  T value{};
  void check() const {}
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Copies, converting on the way: to[n] = from[n] as To.
///
/// From = To copies bits, so that NaN payloads survive.
///
/// Values   float to bf16 rounds to nearest, ties to even, beyond the range to infinity; NaN stays
///          NaN. bf16 to float is exact.
/// Errors   ShapeError if the extents disagree. N == 0 does nothing.
/// Accuracy exact: equal bit for bit on every device.
/// Memory   reads `from` once, writes `to` once. They may not overlap.
template <class From, class To>
struct Cast {
  View<const From, 1> from;  ///< [N]
  View<To, 1> to;            ///< [N] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Gathers rows: the states of the hypotheses that a beam search keeps.
///
///     to[o,r,i] = from[o,row[r],i]
///
/// A row may be taken several times or not at all, so R need not be B.
///
/// Values   a row outside [0, B) gives kImpossible: NaN, or −1 in integers. Bits are copied, so NaN
///          payloads survive.
/// Errors   ShapeError if the extents disagree. An empty `to` does nothing; if B == 0, no row exists.
/// Accuracy exact.
/// Memory   reads R rows and writes R rows for every o. `from` and `to` may not overlap.
template <class T>
struct GatherRows {
  /// What a row that does not exist holds.
  static constexpr T kImpossible = [] {
    if constexpr (std::is_integral_v<T>)
      return T(-1);
    else
      return T(NAN);
  }();

  View<const T, 3> from;            ///< [O, B, I]
  View<const std::int32_t, 1> row;  ///< [R]
  View<T, 3> to;                    ///< [O, R, I] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Gathers the windows of a step of truncated BPTT from one long stream of tokens. With
/// n = position[b] + t, for every row b and every step t:
///
///     token[t,b]  = stream[n]       if 0 ≤ n < N,                 otherwise 0
///     target[t,b] = stream[n + 1]   if 0 ≤ n and n + 1 < N,       otherwise kNoTarget
///     reset[t,b]  = 1               if 0 ≤ n < N and n = 0, or document_end ≥ 0 and
///                                   stream[n − 1] = document_end, or t = 0 and restart[b] ≠ 0;
///                                   otherwise 0
///
/// So reset is 1 where a token begins a document: the first token of the stream, and every token
/// that follows the separator; and where a window's row is to begin anew. The separator is the last
/// token of its document. Nothing wraps round: the caller moves the positions, and a window that runs over the end is padded.
///
/// Values   positions may be any int64: nothing is read out of bounds. Tokens are copied as they
///          are, whatever they hold.
/// Errors   ShapeError if the extents disagree. T == 0 or B == 0 does nothing; N == 0 is a stream
///          of which every window is padding.
/// Accuracy exact.
/// Memory   reads T + 2 tokens per row, writes T·B of each output asked for.
struct GatherWindows {
  /// A target that no token follows: the one that cross_entropy ignores.
  static constexpr std::int32_t kNoTarget = -1;

  View<const std::int32_t, 1> stream;     ///< [N]    all tokens, in order
  View<const std::int64_t, 1> position;   ///< [B]    where each row's window begins
  View<const std::int32_t, 1> restart{};  ///< [B]   rows that begin anew; may be absent
  std::int32_t document_end = -1;         ///<        the token that ends a document; < 0: none does
  View<std::int32_t, 2> token;            ///< [T, B] out: the model's input
  View<std::int32_t, 2> target{};         ///< [T, B] out: the token that follows; may be absent
  View<std::int32_t, 2> reset{};          ///< [T, B] out: where documents begin; may be absent
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
