#pragma once

#include "engine/ops.h"

namespace carousel {

/// Yes-no decisions of rows of hidden units, [N, C] each.
struct Choices {
  Tensor choice, answer;
};

/// For rules of losses over such decisions: runs BinaryChoices, queues all gradients and labels the
/// loss, whose rows have the shape of `target`.
Loss choice_loss(Var hidden, Var weight, const Tensor& target, const Choices& choices,
                 const ChoiceOptions& options);

}  // namespace carousel
