#include "kernels/sampled_loss/sampled_loss.h"

#include <type_traits>

#include "engine/ops.h"

namespace carousel {
namespace {

struct Candidates {
  Tensor words;    ///< [N + S]
  Tensor counted;  ///< [1] targets that are not ignored
};

template <class A>
Candidates draw(Tape& tape, const Tensor& target, const SampledOptions& options) {
  const Candidates to{.words = tape.tensor({target.size() + options.samples}, DType::i32),
                      .counted = tape.tensor({1}, dtype_of<A>())};
  run(tape.device(),
      SampledCandidates<A>{.target = target.view<std::int32_t, 1>(),
                           .table = {.columns = options.table.view<std::int64_t, 1>()},
                           .source = options.random,
                           .candidate = to.words.mutable_view<std::int32_t, 1>(),
                           .counted = to.counted.mutable_view<A, 1>()});
  return to;
}

}  // namespace

Loss sampled_loss(Var hidden, Var weight, Var bias, const Tensor& target,
                  const SampledOptions& options) {
  return visit_float(hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    Tape& tape = hidden.tape();
    const Candidates candidates = draw<A>(tape, target, options);
    const Var rows = embedding(weight, candidates.words);
    const Var biases = embedding(bias, candidates.words);
    tape.label(rows, {.part = "rows", .axes = Axes::parameter});
    tape.label(biases, {.part = "biases", .axes = Axes::parameter});
    const Tensor loss = tape.tensor(target.shape(), dtype_of<A>());
    const Tensor mean = tape.tensor({1}, dtype_of<A>());
    const Tensor denominator = options.denominator ? options.denominator : candidates.counted;
    tape.run_with_scratch(SampledLoss<T>{.kind = options.kind,
                                         .hidden = hidden.value().view<T, 2>(),
                                         .row = rows.value().view<T, 2>(),
                                         .bias = biases.value().view<A, 1>(),
                                         .candidate = candidates.words.view<std::int32_t, 1>(),
                                         .log_expected = options.log_expected.view<A, 1>(),
                                         .denominator = denominator.view<A, 1>(),
                                         .loss = loss.mutable_view<A, 1>(),
                                         .mean_loss = mean.mutable_view<A, 1>(),
                                         .d_hidden = hidden.gradient().as<T, 2>(),
                                         .d_row = rows.gradient().tensor.mutable_view<T, 2>(),
                                         .d_bias = biases.gradient().tensor.mutable_view<A, 1>(),
                                         .tf32 = tape.tf32()});
    const Var per_row = tape.output(loss, {}), of_all = tape.output(mean, {});
    tape.label(per_row, {.name = "loss per target",
                         .axes = loss.shape().rank() == 2 ? Axes::sequence : Axes::parameter,
                         .forward = kSampledLossTolerance,
                         .backward = kSampledLossGradientTolerance});
    tape.label(of_all, {.name = "mean loss", .axes = Axes::parameter});
    return Loss{.mean = of_all, .rows = per_row};
  });
}

}  // namespace carousel
