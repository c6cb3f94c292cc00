#pragma once

#include "kernels/context_windows/context_windows.h"

namespace carousel {

/// The token that lies `back` steps before step t of row b, which restarted no later than that; from
/// `before` where the window does not reach.
constexpr std::int32_t token_before(const ContextWindows& op, std::int64_t t, std::int64_t b,
                                    std::int64_t back) {
  if (back <= t) return op.token(t - back, b);
  const std::int32_t stored =
      op.before.present() ? op.before(b, op.width + (t - back)) : std::int32_t{0};
  return stored > 0 ? stored - 1 : kNoToken;
}

/// Item t·B + b: the context of step t < T of row b; for t = T that at the row's end. For both devices.
constexpr void write_context(const ContextWindows& op, std::int64_t item) {
  const std::int64_t steps = op.token.extent[0], rows = op.token.extent[1], width = op.width;
  const std::int64_t t = item / rows, b = item - t * rows;
  const std::int64_t length = op.lengths.present() ? op.lengths(b) : steps;
  const std::int64_t end = length < 0 ? 0 : length < steps ? length : steps;
  const bool is_end = t == steps;
  const std::int64_t from = is_end ? end - 1 : t;
  bool reaches = is_end || t < end;  // whether anything lies so far back
  for (std::int64_t k = width - 1; k >= 0; --k) {
    const std::int64_t back = width - 1 - k;
    const std::int32_t id = reaches ? token_before(op, from, b, back) : kNoToken;
    if (back <= from && op.reset.present() && op.reset(from - back, b) != 0) reaches = false;
    if (!is_end && op.context.present()) op.context(t, b, k) = id;
    if (is_end && op.last.present()) op.last(b, k) = id;
    if (is_end && op.after.present()) op.after(b, k) = id == kNoToken ? 0 : id + 1;
  }
}

}  // namespace carousel
