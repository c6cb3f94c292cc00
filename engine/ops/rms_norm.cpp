#include "kernels/rms_norm/rms_norm.h"

#include "engine/ops.h"
#include "engine/ops/normalized_label.h"

namespace carousel {

Var rms_norm(Var x, Var gain, float epsilon) {
  Tape& tape = x.tape();
  const Tensor y = tape.tensor(x.shape(), x.dtype());
  const DType sums = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor inverse_rms = tape.tensor({x.shape().rows()}, sums);
  const auto gain_view = [gain]<class Acc>(std::type_identity<Acc>) {
    return gain.present() ? gain.value().view<Acc, 1>() : View<const Acc, 1>{};
  };
  visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
    using Acc = Accumulator<T>;
    run(tape.device(), RmsNormForward<T>{.x = x.value().view<T, 2>(),
                                         .gain = gain_view(std::type_identity<Acc>{}),
                                         .epsilon = epsilon,
                                         .y = y.mutable_view<T, 2>(),
                                         .inverse_rms = inverse_rms.mutable_view<Acc, 1>()});
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

}  // namespace carousel
