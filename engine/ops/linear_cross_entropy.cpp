#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <type_traits>

#include "engine/ops.h"

namespace carousel {

Loss linear_cross_entropy(Var hidden, Var weight, Var bias, const Tensor& target,
                          const LossOptions& options) {
  return visit_float(hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    Tape& tape = hidden.tape();
    const Loss result{.mean = tape.tensor({1}, dtype_of<A>()),
                      .rows = tape.tensor({hidden.shape().rows()}, dtype_of<A>()),
                      .count = tape.tensor({1}, DType::i32)};
    const GradientTarget d_hidden = hidden.gradient(), d_weight = weight.gradient();
    const GradientTarget d_bias = bias.present() ? bias.gradient() : GradientTarget{};

    tape.run_with_scratch(LinearCrossEntropy<T>{
        .hidden = hidden.value().view<T, 2>(),
        .weight = weight.value().view<T, 2>(),
        .bias = bias.present() ? bias.value().view<A, 1>() : View<const A, 1>{},
        .target = target.view<std::int32_t, 1>(),
        .label_smoothing = options.label_smoothing,
        .loss = result.rows.mutable_view<A, 1>(),
        .mean_loss = result.mean.mutable_view<A, 1>(),
        .count = result.count.mutable_view<std::int32_t, 1>(),
        .d_hidden = d_hidden.tensor.mutable_view<T, 2>(),
        .d_weight = d_weight.tensor.mutable_view<A, 2>(),
        .d_bias = d_bias.tensor.mutable_view<A, 1>(),
        .accumulate_d_hidden = d_hidden.accumulate,
        .accumulate_d_weight = d_weight.accumulate,
        .accumulate_d_bias = d_bias.accumulate,
        .tf32 = tape.tf32()});
    return result;
  });
}

}  // namespace carousel
