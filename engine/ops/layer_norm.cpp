#include "kernels/layer_norm/layer_norm.h"

#include "engine/ops.h"
#include "engine/ops/normalized_label.h"

namespace carousel {
namespace {

/// What an absent parameter is to an op.
template <class T>
View<const T, 1> vector(const Var& x) {
  return x.present() ? x.value().view<T, 1>() : View<const T, 1>{};
}
template <class T>
Gradient<T, 1> gradient(const Var& x) {
  return x.present() && x.needs_gradient() ? x.gradient().as<T, 1>() : Gradient<T, 1>{};
}

}  // namespace

Var layer_norm(Var x, Var gain, Var bias, float epsilon) {
  Tape& tape = x.tape();
  const Tensor y = tape.tensor(x.shape(), x.dtype());
  const DType sums = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor mean = tape.tensor({x.shape().rows()}, sums);
  const Tensor inverse_deviation = tape.tensor({x.shape().rows()}, sums);
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    using Acc = Accumulator<T>;
    run(tape.device(),
        LayerNormForward<T>{.x = x.value().view<T, 2>(),
                            .gain = vector<Acc>(gain),
                            .bias = vector<Acc>(bias),
                            .epsilon = epsilon,
                            .y = y.mutable_view<T, 2>(),
                            .mean = mean.mutable_view<Acc, 1>(),
                            .inverse_deviation = inverse_deviation.mutable_view<Acc, 1>()});
  });
  const Var result =
      tape.record(y, {x, gain, bias}, [x, gain, bias, mean, inverse_deviation](const Tensor& d_y) {
        visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
          using Acc = Accumulator<T>;
          x.tape().run_with_scratch(
              LayerNormBackward<T>{.x = x.value().view<T, 2>(),
                                   .gain = vector<Acc>(gain),
                                   .mean = mean.view<Acc, 1>(),
                                   .inverse_deviation = inverse_deviation.view<Acc, 1>(),
                                   .d_y = d_y.view<T, 2>(),
                                   .d_x = x.gradient().as<T, 2>(),
                                   .d_gain = gradient<Acc>(gain),
                                   .d_bias = gradient<Acc>(bias)});
        });
      });
  label_normalized(result, {{"mean", mean}, {"inverse deviation", inverse_deviation}},
                   kLayerNormForwardTolerance, kLayerNormBackwardTolerance);
  return result;
}

}  // namespace carousel
