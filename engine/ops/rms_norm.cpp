#include "kernels/rms_norm/rms_norm.h"

#include "engine/ops.h"
#include "engine/ops/normalized_label.h"
#include "engine/ops/sum.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// Of x, which is first made the sum of `summands`, if there are any.
struct Summands {
  Tensor a{}, b{};
};
Var normalized(Var x, const Summands& summands, Var gain, float epsilon) {
  Tape& tape = x.tape();
  const Tensor y = tape.tensor(x.shape(), x.dtype());
  const DType sums = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor inverse_rms = tape.tensor({x.shape().rows()}, sums);
  const auto gain_view = [gain]<class Acc>(std::type_identity<Acc>) {
    return gain.present() ? gain.value().view<Acc, 1>() : View<const Acc, 1>{};
  };
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    using Acc = Accumulator<T>;
    RmsNormForward<T> op{.x = x.value().view<T, 2>(),
                         .gain = gain_view(std::type_identity<Acc>{}),
                         .epsilon = epsilon,
                         .y = y.mutable_view<T, 2>(),
                         .inverse_rms = inverse_rms.mutable_view<Acc, 1>()};
    if (summands.a) {
      op.x = summands.a.view<T, 2>(), op.added = summands.b.view<T, 2>();
      op.sum = x.value().mutable_view<T, 2>();
    }
    run(tape.device(), op);
  });
  const Var result =
      tape.record(y, {x, gain}, [x, gain, gain_view, inverse_rms](const Tensor& d_y) {
        visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
          using Acc = Accumulator<T>;
          const bool wanted = gain.present() && gain.needs_gradient();
          x.tape().run_with_scratch(RmsNormBackward<T>{
              .x = x.value().view<T, 2>(),
              .gain = gain_view(std::type_identity<Acc>{}),
              .inverse_rms = inverse_rms.view<Acc, 1>(),
              .d_y = d_y.view<T, 2>(),
              .d_x = x.gradient().as<T, 2>(),
              .d_gain = wanted ? gain.gradient().as<Acc, 1>() : Gradient<Acc, 1>{}});
        });
      });
  label_normalized(result, {{"inverse root mean square", inverse_rms}}, kRmsNormForwardTolerance,
                   kRmsNormBackwardTolerance);
  return result;
}

}  // namespace

Var rms_norm(Var x, Var gain, float epsilon) { return normalized(x, {}, gain, epsilon); }

SumAndNorm add_rms_norm(Var a, Var b, Var gain, float epsilon) {
  if (a.shape() != b.shape()) {
    throw ShapeError("add_rms_norm: b is " + b.shape().text() + ", expected the shape of a, " +
                     a.shape().text());
  }
  Tape& tape = a.tape();
  const Var sum = [&] {
    const Tape::Layer layer(tape, tape.layer_name() + ", sum");
    return recorded_sum(tape.tensor(a.shape(), a.dtype()), a, b);
  }();
  return {sum, normalized(sum, {a.value(), b.value()}, gain, epsilon)};
}

}  // namespace carousel
