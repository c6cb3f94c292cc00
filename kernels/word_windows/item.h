#pragma once

#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/word_windows/word_windows.h"

// What is done for a word, on both devices. Private to the op.
namespace carousel::word_windows {

/// The words drawn for t·B + b = item.
constexpr auto draw(const WordWindows& op, std::int64_t item) {
  return op.source.words(static_cast<std::uint64_t>(item), op.source.step.data[0]);
}

/// Writes `reached`.
constexpr void mark(const WordWindows& op, std::int64_t item) {
  const std::int32_t token = op.token.data[item];
  const bool there = (!op.inside.present() || op.inside.data[item] >= 0) &&
                     in_vocabulary(token, op.keep.extent[0]);
  const float keep = there ? op.keep.data[token] : 0.0F;
  const bool kept = keep > 0 && (!op.source.step.present() || uniform(draw(op, item)[0]) < keep);
  op.reached.data[item] = kept ? token : kNoToken;
}

/// Kept words found in one direction: `step` is −1 or 1. The first goes to the slot `slot`, others
/// further away from the middle.
constexpr std::int64_t collect(const WordWindows& op, std::int64_t item, std::int64_t radius,
                               int step) {
  const auto [steps, rows] = op.token.extent;
  const std::int64_t t = item / rows, b = item - t * rows;
  std::int32_t* const slots = op.context.data + item * 2 * op.width;
  std::int64_t found = 0;
  for (std::int64_t s = t; found < radius;) {
    if (step < 0 && op.reset.present() && op.reset(s, b) != 0) break;
    s += step;
    if (s < 0 || s >= steps) break;
    if (step > 0 && op.reset.present() && op.reset(s, b) != 0) break;
    const std::int32_t token = op.reached(s, b);
    if (token == kNoToken) continue;
    ++found;
    slots[step < 0 ? op.width - found : op.width + found - 1] = token;
  }
  return found;
}

/// Writes context, center and near; `reached` is complete.
constexpr void write(const WordWindows& op, std::int64_t item) {
  const std::int64_t slots = 2 * op.width;
  std::int32_t* const context = op.context.data + item * slots;
  for (std::int64_t k = 0; k < slots; ++k) context[k] = kNoToken;
  const std::int32_t token = op.reached.data[item];
  std::int64_t found = 0;
  if (token != kNoToken) {
    std::int64_t radius = op.width;
    if (op.source.step.present()) {
      const std::uint64_t share = draw(op, item)[1] * static_cast<std::uint64_t>(op.width) >> 32;
      radius -= static_cast<std::int64_t>(share);
    }
    found = collect(op, item, radius, -1) + collect(op, item, radius, 1);
  }
  op.center.data[item] = found > 0 ? token : kIgnoreTarget;
  if (!op.near.present()) return;
  for (std::int64_t k = 0; k < slots; ++k) {
    op.near.data[item * slots + k] = context[k] == kNoToken ? kIgnoreTarget : token;
  }
}

}  // namespace carousel::word_windows
