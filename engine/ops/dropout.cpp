#include "kernels/dropout/dropout.h"

#include "engine/ops.h"

namespace carousel {

Var dropout(Var x, float drop_probability, const RandomSource& source) {
  if (drop_probability == 0.0F) return x;
  Tape& tape = x.tape();
  const Tensor y = tape.tensor(x.shape(), x.dtype());
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), DropoutForward<T>{.x = x.value().view<T, 1>(),
                                         .y = y.mutable_view<T, 1>(),
                                         .drop_probability = drop_probability,
                                         .source = source});
  });
  const Var result = tape.record(y, {x}, [x, drop_probability, source](const Tensor& d_y) {
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      run(d_y.device(), DropoutBackward<T>{.d_y = d_y.view<T, 1>(),
                                           .d_x = x.gradient().as<T, 1>(),
                                           .drop_probability = drop_probability,
                                           .source = source});
    });
  });
  tape.label(result, {.name = "dropout after " + tape.layer_name(),
                      .forward = kDropoutTolerance,
                      .backward = kDropoutTolerance});
  return result;
}

}  // namespace carousel
