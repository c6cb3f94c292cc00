#include "kernels/embedding/embedding.h"

#include <cstddef>

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

/// Bytes of the tape's arena; i32 is there only because a tensor has a type.
View<std::byte, 1> scratch(Tape& tape, std::size_t bytes) {
  const auto count = static_cast<std::int64_t>((bytes + 3) / 4);
  const Tensor memory = tape.tensor({count}, DType::i32);
  return {static_cast<std::byte*>(memory.mutable_data()), {4 * count}};
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
  return tape.record(y, {weight}, [weight, token, width](const Tensor& d_y) {
    const GradientTarget d_weight = weight.gradient();
    Tape& owner = weight.tape();
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      const std::size_t bytes = embedding_scratch_bytes<T>(owner.device(), token.size(), width);
      run(owner.device(),
          EmbeddingBackward<T>{.d_y = d_y.view<T, 2>(),
                               .token = token.view<std::int32_t, 1>(),
                               .d_weight = d_weight.tensor.mutable_view<Accumulator<T>, 2>(),
                               .accumulate_d_weight = d_weight.accumulate,
                               .scratch = scratch(owner, bytes)});
    });
  });
}

}  // namespace carousel
