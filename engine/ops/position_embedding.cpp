#include "kernels/position_embedding/position_embedding.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {

Var position_embedding(Var x, Var table, const Tensor& offset, float scale) {
  Tape& tape = x.tape();
  if (offset && tape.recording()) {
    throw Error("position_embedding: there is an offset on a tape that records, expected none");
  }
  const Tensor y = tape.tensor(x.shape(), x.dtype());
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(),
        PositionEmbeddingForward<T>{
            .x = x.value().view<T, 3>(),
            .table = table.present() ? table.value().view<T, 2>() : View<const T, 2>{},
            .offset = offset.view<std::int64_t, 1>(),
            .scale = scale,
            .y = y.mutable_view<T, 3>()});
  });
  const Var result = tape.record(y, {x, table}, [x, table, scale](const Tensor& d_y) {
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      using Acc = Accumulator<T>;
      run(d_y.device(),
          PositionEmbeddingBackward<T>{.d_y = d_y.view<T, 3>(),
                                       .scale = scale,
                                       .d_x = x.gradient().as<T, 3>(),
                                       .d_table = table.present() && table.needs_gradient()
                                                      ? table.gradient().as<Acc, 2>()
                                                      : Gradient<Acc, 2>{}});
    });
  });
  tape.label(result, {.part = "with positions",
                      .forward = kPositionEmbeddingTolerance,
                      .backward = kPositionEmbeddingTolerance,
                      .rounded_inputs = {.absolute = 0x1p-8}});
  return result;
}

}  // namespace carousel
