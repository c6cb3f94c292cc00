#include "kernels/embedding/embedding.h"

#include "engine/ops.h"
#include "engine/ops/row_gradient.h"
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

std::int64_t width_of(Var weight) { return as_rows(weight.value()).shape().back(); }

/// A row for each token in a value of this shape, which may have several in its last dimension.
Var look_up(Var weight, const Tensor& token, const Shape& shape, const RowDropout& dropout) {
  Tape& tape = weight.tape();
  const Shape each{token.size(), width_of(weight)};
  const Tensor y = tape.tensor(shape, weight.dtype());
  visit_float(weight.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), EmbeddingForward<T>{.weight = as_rows(weight.value()).view<T, 2>(),
                                           .token = token.view<std::int32_t, 1>(),
                                           .y = y.reshaped(each).mutable_view<T, 2>(),
                                           .dropout = dropout});
  });
  const Var result = tape.record(y, {weight}, [=](const Tensor& d_value) {
    row_gradient(weight, {.d_y = d_value.reshaped(each), .token = token, .dropout = dropout});
  });
  // Rows are copied; between precisions they differ by the rounding of a bf16 matrix and, with
  // dropout, by that of the scaled rows.
  tape.label(result,
             {.name = tape.layer_name().empty() ? "embedding" : "",
              .forward = {.f32 = {},
                          .bf16 = {.relative = dropout.drop_probability == 0 ? 0x1p-8 : 0x1p-7}},
              .backward = kEmbeddingTolerance});
  return result;
}

}  // namespace

Var embedding(Var weight, const Tensor& token, float drop_probability, const RandomSource& source) {
  return look_up(weight, token, with_width(token.shape(), width_of(weight)),
                 {drop_probability, source});
}

Var joined_embeddings(Var weight, const Tensor& token, float drop_probability,
                      const RandomSource& source) {
  const Shape& tokens = token.shape();
  return look_up(weight, token, tokens.with_last(tokens.back() * width_of(weight)),
                 {drop_probability, source});
}

}  // namespace carousel
