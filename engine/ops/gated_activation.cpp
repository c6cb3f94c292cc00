#include "kernels/gated_activation/gated_activation.h"

#include <fmt/format.h>

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {

Var gated_activation(Var x, Activation kind) {
  const std::int64_t width = x.shape().back();
  if (width % 2 != 0) {
    throw ShapeError(fmt::format(
        "gated_activation: columns of x are {}, expected two halves of equal width", width));
  }
  Tape& tape = x.tape();
  const Tensor y = tape.tensor(x.shape().with_last(width / 2), x.dtype());
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), GatedActivationForward<T>{
                           .x = x.value().view<T, 2>(), .y = y.mutable_view<T, 2>(), .kind = kind});
  });
  const Var result = tape.record(y, {x}, [x, kind](const Tensor& d_y) {
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      run(d_y.device(), GatedActivationBackward<T>{.x = x.value().view<T, 2>(),
                                                   .d_y = d_y.view<T, 2>(),
                                                   .d_x = x.gradient().as<T, 2>(),
                                                   .kind = kind});
    });
  });
  tape.label(result, {.part = "gated",
                      .axes = y.shape().rank() > 2 ? Axes::sequence : Axes::state,
                      .forward = kGatedActivationForwardTolerance,
                      .backward = kGatedActivationBackwardTolerance});
  return result;
}

}  // namespace carousel
