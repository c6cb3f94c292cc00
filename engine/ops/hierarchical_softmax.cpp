#include "kernels/hierarchical_softmax/hierarchical_softmax.h"

#include "engine/ops/choice_loss.h"

namespace carousel {

Loss hierarchical_softmax(Var hidden, Var weight, const Tensor& target, const WordTree& tree,
                          const ChoiceOptions& options) {
  Tape& tape = hidden.tape();
  const Shape shape{target.size(), tree.depth};
  const Choices choices{.choice = tape.tensor(shape, DType::i32),
                        .answer = tape.tensor(shape, DType::i32)};
  run(tape.device(), HierarchicalSoftmax{.target = target.view<std::int32_t, 1>(),
                                         .start = tree.start.view<std::int32_t, 1>(),
                                         .node = tree.node.view<std::int32_t, 1>(),
                                         .turn = tree.turn.view<std::int32_t, 1>(),
                                         .choice = choices.choice.mutable_view<std::int32_t, 2>(),
                                         .answer = choices.answer.mutable_view<std::int32_t, 2>()});
  return choice_loss(hidden, weight, target, choices, options);
}

}  // namespace carousel
