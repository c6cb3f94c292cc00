#include "kernels/combine/combine.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// A tensor with all but its last dimension folded into one.
template <class T>
View<T, 2> matrix(const Tensor& x) {
  return {x.mutable_view<T, 1>().data, {x.shape().rows(), x.shape().back()}};
}

/// Writes `from` to the columns of `to` from `first` on.
void put_columns(const Tensor& from, const Tensor& to, std::int64_t first) {
  visit_float(from.dtype(), [&]<class T>(std::type_identity<T>) {
    run(from.device(), CopyColumns<T>{.from = matrix<T>(from),
                                      .to = {matrix<T>(to)},
                                      .first_to = first,
                                      .width = from.shape().back()});
  });
}

/// Gives `x` the columns of d_y from `first` on, as many as it has, as its gradient.
void pass_columns(const Tensor& d_y, std::int64_t first, const Var& x) {
  const GradientTarget d_x = x.gradient();
  if (!d_x.tensor) return;
  visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
    run(d_y.device(), CopyColumns<T>{.from = matrix<T>(d_y),
                                     .first_from = first,
                                     .to = {matrix<T>(d_x.tensor), d_x.accumulate},
                                     .width = x.shape().back()});
  });
}

Axes axes_of(const Shape& shape) { return shape.rank() > 2 ? Axes::sequence : Axes::state; }

}  // namespace

Var concatenate(Var a, Var b) {
  const std::int64_t split = a.shape().back(), width = split + b.shape().back();
  const Shape shape = a.shape().with_last(width);
  if (shape != b.shape().with_last(width)) {
    throw ShapeError("concatenate: b is " + b.shape().text() + ", expected the dimensions of a, " +
                     a.shape().text() + ", before the last");
  }
  Tape& tape = a.tape();
  const Tensor y = tape.tensor(shape, a.dtype());
  put_columns(a.value(), y, 0);
  put_columns(b.value(), y, split);
  const Var result = tape.record(y, {a, b}, [a, b, split](const Tensor& d_y) {
    pass_columns(d_y, 0, a);
    pass_columns(d_y, split, b);
  });
  tape.label(result, {.part = "concatenation", .axes = axes_of(shape)});
  return result;
}

Var add(Var a, Var b) {
  if (a.shape() != b.shape()) {
    throw ShapeError("add: b is " + b.shape().text() + ", expected the shape of a, " +
                     a.shape().text());
  }
  Tape& tape = a.tape();
  const Tensor y = tape.tensor(a.shape(), a.dtype());
  visit_float(a.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(),
        Add<T>{
            .a = a.value().view<T, 1>(), .b = b.value().view<T, 1>(), .y = y.mutable_view<T, 1>()});
  });
  const Var result = tape.record(y, {a, b}, [a, b](const Tensor& d_y) {
    pass_columns(d_y, 0, a);
    pass_columns(d_y, 0, b);
  });
  // Between precisions it differs by the rounding of the sum.
  tape.label(result, {.part = "sum",
                      .axes = axes_of(y.shape()),
                      .forward = {.f32 = {}, .bf16 = {.relative = 0x1p-8}}});
  return result;
}

}  // namespace carousel
