#include "engine/ops/row_gradient.h"

namespace carousel {
namespace {

/// The op's fields that the two gradients have in common.
template <class Op, class T>
Op with_terms(const RowTerms& terms) {
  Op op;
  op.d_y = terms.d_y.view<T, 2>();
  op.token = terms.token.view<std::int32_t, 1>();
  op.coefficient = terms.coefficient.view<Accumulator<T>, 1>();
  op.dropout = terms.dropout;
  return op;
}

}  // namespace

void row_gradient(Var weight, const RowTerms& terms) {
  if (!weight.needs_gradient()) return;
  Tape& tape = weight.tape();
  visit_float(terms.d_y.dtype(), [&]<class T>(std::type_identity<T>) {
    RowGradient* const to = weight.row_gradient();
    if (to == nullptr) {
      auto op = with_terms<EmbeddingBackward<T>, T>(terms);
      const GradientTarget target = weight.gradient();
      op.d_weight =
          GradientTarget{as_rows(target.tensor), target.accumulate}.as<Accumulator<T>, 2>();
      tape.run_with_scratch(op);
      return;
    }
    const Shape shape = as_rows(weight.value()).shape();
    const std::int64_t tokens = terms.token.size();
    *to = {.row = tape.tensor({tokens}, DType::i32),
           .count = tape.tensor({1}, DType::i32),
           .values = tape.tensor({tokens, shape[1]}, dtype_of<Accumulator<T>>())};
    auto op = with_terms<EmbeddingRowBackward<T>, T>(terms);
    op.vocab = shape[0];
    op.row = to->row.mutable_view<std::int32_t, 1>();
    op.row_count = to->count.mutable_view<std::int32_t, 1>();
    op.d_row = to->values.mutable_view<Accumulator<T>, 2>();
    tape.run_with_scratch(op);
  });
}

}  // namespace carousel
