#include "kernels/rope/rope.h"

#include "engine/ops.h"

namespace carousel {
namespace {

/// Turns the heads of x, or turns them back.
void turn(const RopeOptions& options, const Tensor& x, const GradientTarget& y, bool inverse) {
  if (!y.tensor) return;
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    run(x.device(), Rope<T>{.x = x.view<T, 3>(),
                            .offset = options.offset.view<std::int64_t, 1>(),
                            .first = options.first,
                            .heads = options.heads,
                            .head_width = options.head_width,
                            .base = options.base,
                            .pairs = options.pairs,
                            .inverse = inverse,
                            .y = y.as<T, 3>()});
  });
}

}  // namespace

Var rope(Var x, const RopeOptions& options) {
  Tape& tape = x.tape();
  const Tensor y = tape.tensor(x.shape(), x.dtype());
  turn(options, x.value(), {.tensor = y}, false);
  const Var result = tape.record(
      y, {x}, [x, options](const Tensor& d_y) { turn(options, d_y, x.gradient(), true); });
  tape.label(result, {.part = "turned", .forward = kRopeTolerance, .backward = kRopeTolerance});
  return result;
}

}  // namespace carousel
