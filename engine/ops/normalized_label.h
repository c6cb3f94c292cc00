#pragma once

#include <initializer_list>
#include <utility>

#include "engine/ops.h"

namespace carousel {

/// Labels y, the normalized rows of some x, and the statistics [N] of x that the backward pass reads
/// beside x: a comparison, which gives one side the values of the other, gives it those too, so that
/// both backward passes take the same x and statistics that belong to it.
inline void label_normalized(const Var& y,
                             std::initializer_list<std::pair<const char*, Tensor>> statistics,
                             const Tolerances& forward, const Tolerances& backward) {
  Tape& tape = y.tape();
  const Shape shape = y.shape();  // the tape moves its own when it gets more values
  tape.label(y, {.part = "normalized",
                 .axes = shape.rank() > 2 ? Axes::sequence : Axes::state,
                 .forward = forward,
                 .backward = backward});
  if (!tape.recording()) return;
  const bool by_time = shape.rank() == 3;
  for (const auto& [part, values] : statistics) {
    const Tensor rows = by_time ? values.reshaped({shape[0], shape[1]}) : values;
    tape.label(tape.output(rows, {}), {.part = part,
                                       .axes = by_time ? Axes::sequence : Axes::parameter,
                                       .forward = forward,
                                       .backward = backward});
  }
}

}  // namespace carousel
