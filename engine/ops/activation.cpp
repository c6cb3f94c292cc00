#include "kernels/activation/activation.h"

#include "engine/ops.h"

namespace carousel {

Var activation(Var x, Activation kind) {
  Tape& tape = x.tape();
  const Tensor y = tape.tensor(x.shape(), x.dtype());
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), ActivationForward<T>{
                           .x = x.value().view<T, 1>(), .y = y.mutable_view<T, 1>(), .kind = kind});
  });
  const Var result = tape.record(y, {x}, [x, kind](const Tensor& d_y) {
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      run(d_y.device(), ActivationBackward<T>{.x = x.value().view<T, 1>(),
                                              .d_y = d_y.view<T, 1>(),
                                              .d_x = x.gradient().as<T, 1>(),
                                              .kind = kind});
    });
  });
  tape.label(result, {.part = "activation",
                      .axes = y.shape().rank() > 2 ? Axes::sequence : Axes::state,
                      .forward = kActivationForwardTolerance,
                      .backward = kActivationBackwardTolerance});
  return result;
}

}  // namespace carousel
