#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/view.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// The last K tokens that each row of a batch has read, at every step, for models of n-grams:
///
///     context[t,b,k] = the token K − 1 − k steps before t,    so that the last is token[t,b]
///
/// A row goes on from `before`, what it had read before step 0. Where reset[t,b] is not 0, nothing lies
/// before step t. From step lengths[b] on, the row has ended.
///
/// Values   kNoToken where there is no token: before a row's first, and at steps after its end. Tokens
///          are copied as they are, whatever they hold. In `before` and `after` a token is its id plus
///          1, and 0 is none, so that zeros are a row that has read nothing. Lengths count as within
///          0 … T.
/// Errors   ShapeError if the extents disagree, and for K < 1. B == 0 does nothing. With T == 0 a row
///          ends with what it had read before.
/// Accuracy exact.
/// Memory   reads token and reset up to K times, all but the first from the cache, and `before` once;
///          writes what is asked for once. `after` may not be `before`.
/// Source   Bengio, Ducharme, Vincent & Jauvin 2003, JMLR 3:1137, equation 1: the tokens of its x.
struct ContextWindows {
  View<const std::int32_t, 2> token;      ///< [T, B]
  View<const std::int32_t, 2> reset{};    ///< [T, B]; absent: no row restarts
  View<const std::int32_t, 1> lengths{};  ///< [B]; absent: T each
  View<const std::int32_t, 2> before{};   ///< [B, K] oldest first; absent: nothing was read
  std::int64_t width = 0;                 ///< K
  View<std::int32_t, 3> context{};        ///< [T, B, K] out; may be absent
  View<std::int32_t, 2> last{};           ///< [B, K] out: after each row's last step; may be absent
  View<std::int32_t, 2> after{};  ///< [B, K] out: `before` of the next window; may be absent
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
