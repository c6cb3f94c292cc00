#include "kernels/combine/combine.h"

#include <span>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/ops/sum.h"
#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

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

/// to += from.
void add_to(const Tensor& from, const Tensor& to) {
  visit_float(from.dtype(), [&]<class T>(std::type_identity<T>) {
    run(from.device(), CopyColumns<T>{.from = matrix<T>(from),
                                      .to = {matrix<T>(to), /*accumulate=*/true},
                                      .width = from.shape().back()});
  });
}

Shape with_first(const Shape& shape, std::int64_t extent) {
  switch (shape.rank()) {
    case 2:
      return {extent, shape[1]};
    case 3:
      return {extent, shape[1], shape[2]};
    default:
      throw ShapeError("join_steps: a part is " + shape.text() + ", expected [T, ...]");
  }
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

Var recorded_sum(const Tensor& y, Var a, Var b) {
  Tape& tape = a.tape();
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
  return recorded_sum(y, a, b);
}

Var convert(Var x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tape& tape = x.tape();
  const auto cast = [](const Tensor& from, const Tensor& to) {
    if (from.dtype() == DType::f32 && to.dtype() == DType::bf16) {
      run(from.device(),
          Cast<float, bf16>{.from = from.view<float, 1>(), .to = to.mutable_view<bf16, 1>()});
    } else {
      run(from.device(),
          Cast<bf16, float>{.from = from.view<bf16, 1>(), .to = to.mutable_view<float, 1>()});
    }
  };
  const Tensor y = tape.tensor(x.shape(), dtype);
  cast(x.value(), y);
  const Var result = tape.record(y, {x}, [x, cast](const Tensor& d_y) {
    if (!x.needs_gradient()) return;
    const Tensor d_x = x.tape().tensor(x.shape(), x.dtype());
    cast(d_y, d_x);
    pass_columns(d_x, 0, x);
  });
  return result;  // without a label: between precisions, it is on one side alone
}

Var time_step(Var x, std::int64_t t) {
  if (x.shape().rank() < 2 || t < 0 || t >= x.shape()[0]) {
    throw ShapeError("time_step: t is " + std::to_string(t) + " and x " + x.shape().text() +
                     ", expected a step of [T, ...]");
  }
  Tape& tape = x.tape();
  const Var result = tape.record(x.value().slice(t, 1), {x}, [x, t](const Tensor& d_y) {
    const GradientTarget d_x = x.gradient();
    if (!d_x.tensor) return;
    // The other steps add theirs: here is nothing yet.
    if (!d_x.accumulate) zero(d_x.tensor);
    add_to(d_y, d_x.tensor.slice(t, 1));
  });
  return result;
}

Var join_steps(std::span<const Var> parts) {
  if (parts.empty()) throw ShapeError("join_steps: there are no parts, expected one or more");
  Tape& tape = parts.front().tape();
  const std::int64_t each = parts.front().shape().size() / parts.front().shape()[0];
  std::int64_t steps = 0;
  Var inner = parts.front();  // one that needs a gradient, if there is one
  for (const Var& part : parts) {
    expect_extent("join_steps: elements of a step", part.shape().size(), part.shape()[0] * each);
    steps += part.shape()[0];
    if (part.needs_gradient()) inner = part;
  }
  const Tensor y = tape.tensor(with_first(parts.front().shape(), steps), inner.dtype());
  std::int64_t first = 0;
  for (const Var& part : parts) {
    copy(part.value(), y.slice(first, part.shape()[0]));
    first += part.shape()[0];
  }
  const Var result = tape.record(
      y, {inner}, [kept = std::vector<Var>(parts.begin(), parts.end())](const Tensor& d_y) {
        std::int64_t begin = 0;
        for (const Var& part : kept) {
          pass_columns(d_y.slice(begin, part.shape()[0]), 0, part);
          begin += part.shape()[0];
        }
      });
  tape.label(result, {.part = "steps", .axes = axes_of(y.shape())});
  return result;
}

}  // namespace carousel
