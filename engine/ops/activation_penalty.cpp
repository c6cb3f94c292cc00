#include "kernels/activation_penalty/activation_penalty.h"

#include "engine/ops.h"

namespace carousel {
namespace {

Loss penalty(PenaltyKind kind, Var h, float term_weight, const Tensor& reset,
             const RowRange& rows) {
  return visit_float(h.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    Tape& tape = h.tape();
    const Tensor mean = tape.tensor({1}, dtype_of<A>());
    tape.run_with_scratch(ActivationPenalty<T>{.kind = kind,
                                               .h = h.value().view<T, 3>(),
                                               .begin = rows.begin.view<std::int32_t, 1>(),
                                               .end = rows.end.view<std::int32_t, 1>(),
                                               .reset = reset.view<std::int32_t, 2>(),
                                               .weight = term_weight,
                                               .penalty = mean.mutable_view<A, 1>(),
                                               .d_h = h.gradient().as<T, 3>()});
    const Var result = tape.output(mean, {});
    tape.label(result,
               {.name = std::string(kind == PenaltyKind::temporal ? "temporal" : "activation") +
                        " penalty after " + tape.layer_name(),
                .axes = Axes::parameter,
                .forward = kActivationPenaltyTolerance,
                .backward = kActivationPenaltyTolerance});
    return Loss{.mean = result};
  });
}

}  // namespace

Loss activation_penalty(Var h, float term_weight, const RowRange& rows) {
  return penalty(PenaltyKind::activation, h, term_weight, {}, rows);
}

Loss temporal_penalty(Var h, float term_weight, const Tensor& reset, const RowRange& rows) {
  return penalty(PenaltyKind::temporal, h, term_weight, reset, rows);
}

}  // namespace carousel
