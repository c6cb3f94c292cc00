#include "engine/ops/choice_loss.h"

#include <type_traits>

#include "engine/ops/row_gradient.h"
#include "kernels/binary_choices/binary_choices.h"

namespace carousel {

Loss choice_loss(Var hidden, Var weight, const Tensor& target, const Choices& choices,
                 const ChoiceOptions& options) {
  return visit_float(hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    Tape& tape = hidden.tape();
    const Tensor rows = tape.tensor(target.shape(), dtype_of<A>());
    const Tensor mean = tape.tensor({1}, dtype_of<A>()), count = tape.tensor({1}, DType::i32);
    const Tensor d_logit =
        tape.recording() ? tape.tensor(choices.choice.shape(), dtype_of<A>()) : Tensor{};
    run(tape.device(), BinaryChoices<T>{.hidden = hidden.value().view<T, 2>(),
                                        .weight = weight.value().view<T, 2>(),
                                        .choice = choices.choice.view<std::int32_t, 2>(),
                                        .answer = choices.answer.view<std::int32_t, 2>(),
                                        .denominator = options.denominator.view<A, 1>(),
                                        .gradients_of_sum = options.gradients_of_sum,
                                        .term_weight = options.term_weight,
                                        .loss = rows.mutable_view<A, 1>(),
                                        .mean_loss = mean.mutable_view<A, 1>(),
                                        .count = count.mutable_view<std::int32_t, 1>(),
                                        .d_logit = d_logit.mutable_view<A, 2>(),
                                        .d_hidden = hidden.gradient().as<T, 2>()});
    if (tape.recording()) {
      const Shape& shape = hidden.shape();
      row_gradient(weight, {.d_y = hidden.value().reshaped({shape.rows(), shape.back()}),
                            .token = choices.choice,
                            .coefficient = d_logit});
    }
    const Var per_row = tape.output(rows, {}), of_all = tape.output(mean, {});
    tape.label(per_row, {.name = "loss per target",
                         .axes = rows.shape().rank() == 2 ? Axes::sequence : Axes::parameter,
                         .forward = kBinaryChoicesTolerance,
                         .backward = kBinaryChoicesGradientTolerance});
    tape.label(of_all, {.name = "mean loss", .axes = Axes::parameter});
    return Loss{.mean = of_all, .rows = per_row, .count = count};
  });
}

}  // namespace carousel
