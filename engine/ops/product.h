#pragma once

#include "engine/tape/tape.h"

namespace carousel {

/// An operand as it stands in a product.
struct Factor {
  const Tensor& tensor;
  bool transpose = false;
};

/// For rules of ops that multiply. to = a·b (+ bias), or to += …; nothing if nobody asks for it. `to`
/// is of the factors' type, or of the type they are accumulated in, as weight gradients are.
void multiply(const Tape& tape, const GradientTarget& to, const Factor& a, const Factor& b,
              const Tensor& bias = {});

/// The sum of the rows of x, in the type in which they are accumulated, to a bias's gradient.
void sum_columns(Tape& tape, const GradientTarget& to, const Tensor& x);

}  // namespace carousel
