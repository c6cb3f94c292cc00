#include "kernels/additive_attention/additive_attention.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

void expect_sequence(const char* what, const Var& x) {
  if (x.shape().rank() == 3) return;
  throw ShapeError(std::string("additive_attention: ") + what + " is " + x.shape().text() +
                   ", expected [T, B, columns]");
}

/// x [B, columns] as a sequence of one step, or a sequence [T, B, columns].
template <class E>
View<E, 3> sequence(const Tensor& x, std::int64_t steps) {
  if (!x) return {};
  const std::int64_t columns = x.shape().back();
  return {x.mutable_view<E, 1>().data, {steps, x.shape().rows() / steps, columns}};
}

}  // namespace

AdditiveAttention additive_attention(Var q, Var k, Var v, Var score, const Tensor& lengths) {
  if (q.shape().rank() != 2) expect_sequence("q", q);
  expect_sequence("k", k), expect_sequence("v", v);
  Tape& tape = q.tape();
  const std::int64_t B = k.shape()[1], T = q.shape().rank() == 2 ? 1 : q.shape()[0];
  const DType sums = q.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor y = tape.tensor({T, B, v.shape().back()}, q.dtype());
  const Tensor weights = tape.tensor({B, T, k.shape()[0]}, sums);
  visit_float(q.dtype(), [&]<class E>(std::type_identity<E>) {
    run(tape.device(),
        AdditiveAttentionForward<E>{.q = sequence<E>(q.value(), T),
                                    .k = k.value().view<E, 3>(),
                                    .v = v.value().view<E, 3>(),
                                    .score = score.value().view<E, 1>(),
                                    .length = lengths.view<std::int32_t, 1>(),
                                    .y = y.mutable_view<E, 3>(),
                                    .weights = weights.mutable_view<Accumulator<E>, 3>()});
  });
  const Var result = tape.output(y, {q, k, v, score});
  tape.on_backward({result}, [=] {
    // In the order in which the op writes them, should two be one value.
    const GradientTarget d_k = k.gradient(), d_v = v.gradient(), d_q = q.gradient(),
                         d_score = score.gradient();
    visit_float(result.dtype(), [&]<class E>(std::type_identity<E>) {
      using Acc = Accumulator<E>;
      result.tape().run_with_scratch(
          AdditiveAttentionBackward<E>{.q = sequence<E>(q.value(), T),
                                       .k = k.value().view<E, 3>(),
                                       .v = v.value().view<E, 3>(),
                                       .score = score.value().view<E, 1>(),
                                       .length = lengths.view<std::int32_t, 1>(),
                                       .weights = weights.view<Acc, 3>(),
                                       .d_y = result.d().view<E, 3>(),
                                       .d_q = {sequence<E>(d_q.tensor, T), d_q.accumulate},
                                       .d_k = d_k.as<E, 3>(),
                                       .d_v = d_v.as<E, 3>(),
                                       .d_score = d_score.as<Acc, 1>()});
    });
  });
  tape.label(result, {.part = "additive attention",
                      .forward = kAdditiveAttentionForwardTolerance,
                      .backward = kAdditiveAttentionBackwardTolerance});
  return {.y = result, .weights = weights};
}

}  // namespace carousel
