#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <type_traits>

#include "engine/ops.h"

namespace carousel {

Loss linear_cross_entropy(Var hidden, Var weight, Var bias, const Tensor& target,
                          const LossOptions& options) {
  return visit_float(hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    Tape& tape = hidden.tape();
    const Tensor rows = tape.tensor(target.shape(), dtype_of<A>());
    const Tensor mean = tape.tensor({1}, dtype_of<A>()), count = tape.tensor({1}, DType::i32);

    tape.run_with_scratch(LinearCrossEntropy<T>{
        .hidden = hidden.value().view<T, 2>(),
        .weight = weight.value().view<T, 2>(),
        .bias = bias.present() ? bias.value().view<A, 1>() : View<const A, 1>{},
        .target = target.view<std::int32_t, 1>(),
        .row_weight = options.row_weight.view<A, 1>(),
        .denominator = options.denominator.view<A, 1>(),
        .label_smoothing = options.label_smoothing,
        .term_weight = options.term_weight,
        .loss = rows.mutable_view<A, 1>(),
        .mean_loss = mean.mutable_view<A, 1>(),
        .count = count.mutable_view<std::int32_t, 1>(),
        .d_hidden = hidden.gradient().as<T, 2>(),
        .d_weight = weight.gradient().as<A, 2>(),
        .d_bias = bias.present() ? bias.gradient().as<A, 1>() : Gradient<A, 1>{},
        .tf32 = tape.tf32()});
    const Var per_row = tape.output(rows, {}), of_all = tape.output(mean, {});
    tape.label(per_row, {.name = "loss per target",
                         .axes = rows.shape().rank() == 2 ? Axes::sequence : Axes::parameter,
                         .forward = kLinearCrossEntropyTolerance,
                         .backward = kLinearCrossEntropyGradientTolerance});
    tape.label(of_all, {.name = "mean loss", .axes = Axes::parameter});
    return Loss{.mean = of_all, .rows = per_row, .count = count};
  });
}

}  // namespace carousel
