#include "kernels/cross_entropy/cross_entropy.h"

#include <type_traits>

#include "engine/ops.h"

namespace carousel {

Var cross_entropy(Var logits, const Tensor& target, float label_smoothing) {
  return visit_float(logits.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Accumulator<T>;
    Tape& tape = logits.tape();
    const Shape rows{logits.shape().rows()};
    const Tensor loss = tape.tensor(rows, dtype_of<A>());
    const Tensor lse = tape.tensor(rows, dtype_of<A>());

    run(tape.device(), CrossEntropyForward<T>{.logits = logits.value().view<T, 2>(),
                                              .target = target.view<std::int32_t, 1>(),
                                              .label_smoothing = label_smoothing,
                                              .loss = loss.mutable_view<A, 1>(),
                                              .lse = lse.mutable_view<A, 1>()});

    return tape.record(loss, {logits}, [=](const Tensor& d_loss) {
      run(logits.tape().device(),
          CrossEntropyBackward<T>{.d_loss = d_loss.view<A, 1>(),
                                  .logits = logits.value().view<T, 2>(),
                                  .target = target.view<std::int32_t, 1>(),
                                  .label_smoothing = label_smoothing,
                                  .lse = lse.view<A, 1>(),
                                  .d_logits = logits.gradient().as<T, 2>()});
    });
  });
}

}  // namespace carousel
