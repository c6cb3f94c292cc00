#include "kernels/embedding/embedding.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// Gives the row-sparse gradient memory of this step and queues its sums.
template <class T>
void row_backward(Var weight, const Tensor& d_y, const Tensor& token, const RowDropout& dropout,
                  RowGradient& to) {
  Tape& tape = weight.tape();
  const Shape& shape = weight.shape();
  to = {.row = tape.tensor({token.size()}, DType::i32),
        .count = tape.tensor({1}, DType::i32),
        .values = tape.tensor({token.size(), shape[1]}, dtype_of<Accumulator<T>>())};
  tape.run_with_scratch(
      EmbeddingRowBackward<T>{.vocab = shape[0],
                              .d_y = d_y.view<T, 2>(),
                              .token = token.view<std::int32_t, 1>(),
                              .row = to.row.mutable_view<std::int32_t, 1>(),
                              .row_count = to.count.mutable_view<std::int32_t, 1>(),
                              .d_row = to.values.mutable_view<Accumulator<T>, 2>(),
                              .dropout = dropout});
}

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

/// A row for each token in a value of this shape, which may have several in its last dimension.
Var look_up(Var weight, const Tensor& token, const Shape& shape, const RowDropout& dropout) {
  Tape& tape = weight.tape();
  const Shape each{token.size(), weight.shape().back()};
  const Tensor y = tape.tensor(shape, weight.dtype());
  visit_float(weight.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(), EmbeddingForward<T>{.weight = weight.value().view<T, 2>(),
                                           .token = token.view<std::int32_t, 1>(),
                                           .y = y.reshaped(each).mutable_view<T, 2>(),
                                           .dropout = dropout});
  });
  const Var result =
      tape.record(y, {weight}, [weight, token, each, dropout](const Tensor& d_value) {
        const Tensor d_y = d_value.reshaped(each);
        visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
          if (RowGradient* const rows = weight.row_gradient()) {
            row_backward<T>(weight, d_y, token, dropout, *rows);
            return;
          }
          weight.tape().run_with_scratch(
              EmbeddingBackward<T>{.d_y = d_y.view<T, 2>(),
                                   .token = token.view<std::int32_t, 1>(),
                                   .d_weight = weight.gradient().as<Accumulator<T>, 2>(),
                                   .dropout = dropout});
        });
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
  return look_up(weight, token, with_width(token.shape(), weight.shape().back()),
                 {drop_probability, source});
}

Var joined_embeddings(Var weight, const Tensor& token, float drop_probability,
                      const RandomSource& source) {
  const Shape& tokens = token.shape();
  return look_up(weight, token, tokens.with_last(tokens.back() * weight.shape().back()),
                 {drop_probability, source});
}

}  // namespace carousel
