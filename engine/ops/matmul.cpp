#include "kernels/matmul/matmul.h"

#include <type_traits>

#include "engine/ops.h"
#include "engine/ops/product.h"
#include "kernels/reduce/reduce.h"

namespace carousel {

void multiply(const Tape& tape, const GradientTarget& to, const Factor& a, const Factor& b,
              const Tensor& bias) {
  if (!to.tensor) return;
  visit_float(a.tensor.dtype(), [&]<class T>(std::type_identity<T>) {
    const auto run_as = [&]<class Out>(std::type_identity<Out>) {
      run(tape.device(), Matmul<T, Out>{.a = a.tensor.view<T, 2>(),
                                        .b = b.tensor.view<T, 2>(),
                                        .bias = bias.view<Accumulator<T>, 1>(),
                                        .c = to.tensor.mutable_view<Out, 2>(),
                                        .transpose_a = a.transpose,
                                        .transpose_b = b.transpose,
                                        .accumulate = to.accumulate,
                                        .tf32 = tape.tf32()});
    };
    if (to.tensor.dtype() == dtype_of<T>()) {
      run_as(std::type_identity<T>{});
    } else {
      run_as(std::type_identity<Accumulator<T>>{});
    }
  });
}

void sum_columns(Tape& tape, const GradientTarget& to, const Tensor& x) {
  if (!to.tensor) return;
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    using Acc = Accumulator<T>;
    const auto view = x.view<T, 2>();
    const Tensor scratch =
        tape.tensor({column_sum_scratch(view.extent[0], view.extent[1])}, dtype_of<Acc>());
    run(tape.device(),
        ColumnSum<T>{.x = view, .sum = to.as<Acc, 1>(), .scratch = scratch.mutable_view<Acc, 1>()});
  });
}

namespace {

Var product(const Var& a, const Var& b, bool transpose_b, const Var* bias) {
  Tape& tape = a.tape();
  const std::int64_t columns = b.shape()[transpose_b ? 0 : 1];
  const Tensor y = tape.tensor(a.shape().with_last(columns), a.dtype());
  multiply(tape, {.tensor = y}, {a.value()}, {b.value(), transpose_b},
           bias == nullptr ? Tensor{} : bias->value());

  const Var result = bias == nullptr ? tape.output(y, {a, b}) : tape.output(y, {a, b, *bias});
  tape.on_backward({result}, [=, bias = bias == nullptr ? Var{} : *bias, biased = bias != nullptr] {
    Tape& recorded = a.tape();
    const Tensor& d_y = result.d();
    multiply(recorded, a.gradient(), {d_y}, {b.value(), !transpose_b});
    if (transpose_b) {
      multiply(recorded, b.gradient(), {d_y, true}, {a.value()});
    } else {
      multiply(recorded, b.gradient(), {a.value(), true}, {d_y});
    }
    if (biased) sum_columns(recorded, bias.gradient(), d_y);
  });
  tape.label(result, {.part = "product",
                      .forward = kMatmulTolerance,
                      .backward = kMatmulTolerance,
                      .rounded_inputs = {.absolute = 0x1p-8}});
  return result;
}

}  // namespace

Var matmul(Var a, Var b, bool transpose_b) { return product(a, b, transpose_b, nullptr); }

Var linear(Var x, Var weight, Var bias) { return product(x, weight, true, &bias); }

}  // namespace carousel
