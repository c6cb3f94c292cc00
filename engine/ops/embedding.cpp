#include "kernels/embedding/embedding.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// The shape of `token` with a dimension of `width` behind it.
Shape with_width(const Shape& token, std::int64_t width) {
  switch (token.rank()) {
    case 1:
      return {token[0], width};
    case 2:
      return {token[0], token[1], width};
    case 3:
      return {token[0], token[1], token[2], width};
    default:
      throw ShapeError("embedding: token is " + token.text() +
                       ", expected one to three dimensions");
  }
}

}  // namespace

Var embedding(Var weight, const Tensor& token) {
  Tape& tape = weight.tape();
  const std::int64_t width = weight.shape().back();
  const Tensor y = tape.tensor(with_width(token.shape(), width), weight.dtype());
  visit_float(weight.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), EmbeddingForward<T>{.weight = weight.value().view<T, 2>(),
                                           .token = token.view<std::int32_t, 1>(),
                                           .y = y.mutable_view<T, 2>()});
  });
  const Var result = tape.record(y, {weight}, [weight, token](const Tensor& d_y) {
    const GradientTarget d_weight = weight.gradient();
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      weight.tape().run_with_scratch(
          EmbeddingBackward<T>{.d_y = d_y.view<T, 2>(),
                               .token = token.view<std::int32_t, 1>(),
                               .d_weight = d_weight.tensor.mutable_view<Accumulator<T>, 2>(),
                               .accumulate_d_weight = d_weight.accumulate});
    });
  });
  // Rows are copied; between precisions they differ by the rounding of a bf16 matrix.
  tape.label(result, {.forward = {.f32 = {}, .bf16 = {.relative = 0x1p-8}},
                      .backward = kEmbeddingTolerance});
  return result;
}

}  // namespace carousel
