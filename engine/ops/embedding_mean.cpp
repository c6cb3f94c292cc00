#include "kernels/embedding_mean/embedding_mean.h"

#include "engine/ops.h"
#include "engine/ops/row_gradient.h"

namespace carousel {

Var embedding_mean(Var weight, const Tensor& token) {
  Tape& tape = weight.tape();
  const Shape& tokens = token.shape();
  const std::int64_t width = weight.shape().back();
  const Shape rows{tokens.rows(), width};
  const Tensor y = tape.tensor(tokens.with_last(width), weight.dtype());
  const Tensor share = tape.tensor(tokens, weight.dtype() == DType::f64 ? DType::f64 : DType::f32);
  visit_float(weight.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), EmbeddingMean<T>{.weight = weight.value().view<T, 2>(),
                                        .token = token.view<std::int32_t, 2>(),
                                        .y = y.reshaped(rows).mutable_view<T, 2>(),
                                        .share = share.mutable_view<Accumulator<T>, 2>()});
  });
  const Var result = tape.record(y, {weight}, [=](const Tensor& d_y) {
    row_gradient(weight, {.d_y = d_y.reshaped(rows), .token = token, .coefficient = share});
  });
  tape.label(result, {.name = tape.layer_name().empty() ? "embedding mean" : "",
                      .forward = kEmbeddingMeanTolerance,
                      .backward = kEmbeddingTolerance});
  return result;
}

}  // namespace carousel
