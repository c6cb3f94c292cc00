#include "kernels/negative_sampling/negative_sampling.h"

#include "engine/ops/choice_loss.h"

namespace carousel {

Loss negative_sampling(Var hidden, Var weight, const Tensor& target, const NoiseWords& noise,
                       const ChoiceOptions& options) {
  Tape& tape = hidden.tape();
  const Shape shape{target.size(), 1 + noise.words};
  const Choices choices{.choice = tape.tensor(shape, DType::i32),
                        .answer = tape.tensor(shape, DType::i32)};
  run(tape.device(), NegativeSampling{.target = target.view<std::int32_t, 1>(),
                                      .noise = {noise.columns.view<std::int64_t, 1>()},
                                      .group = noise.sharing,
                                      .source = noise.source,
                                      .choice = choices.choice.mutable_view<std::int32_t, 2>(),
                                      .answer = choices.answer.mutable_view<std::int32_t, 2>()});
  return choice_loss(hidden, weight, target, choices, options);
}

}  // namespace carousel
