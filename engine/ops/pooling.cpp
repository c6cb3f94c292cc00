#include "kernels/pooling/pooling.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {

Var pool(Var x, Pooling kind, const Tensor& lengths) {
  if (x.shape().rank() != 3 || x.shape()[0] == 0) {
    throw ShapeError("pooling: x is " + x.shape().text() + ", expected [T, B, H] with T > 0");
  }
  Tape& tape = x.tape();
  const Shape pooled{x.shape()[1], x.shape()[2]};
  const Tensor y = tape.tensor(pooled, x.dtype());
  const Tensor chosen = kind == Pooling::max ? tape.tensor(pooled, DType::i32) : Tensor();
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), PoolingForward<T>{.x = x.value().view<T, 3>(),
                                         .length = lengths.view<std::int32_t, 1>(),
                                         .kind = kind,
                                         .y = y.mutable_view<T, 2>(),
                                         .chosen = chosen.mutable_view<std::int32_t, 2>()});
  });
  const Var result = tape.record(y, {x}, [x, kind, lengths, chosen](const Tensor& d_y) {
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      run(d_y.device(), PoolingBackward<T>{.d_y = d_y.view<T, 2>(),
                                           .length = lengths.view<std::int32_t, 1>(),
                                           .kind = kind,
                                           .chosen = chosen.view<std::int32_t, 2>(),
                                           .d_x = x.gradient().as<T, 3>()});
    });
  });
  tape.label(result, {.part = kind == Pooling::max ? "max over time" : "mean over time",
                      .axes = Axes::state,
                      .forward = kPoolingForwardTolerance,
                      .backward = kPoolingBackwardTolerance});
  return result;
}

}  // namespace carousel
