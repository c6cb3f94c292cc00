#pragma once

#include "engine/tape/tape.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// What the gradient of a parameter's rows is a sum of: see EmbeddingBackward.
struct RowTerms {
  Tensor d_y;               ///< [N / P, E]
  Tensor token;             ///< N ids of rows, in any shape
  Tensor coefficient = {};  ///< N, in any shape; empty: 1 each
  RowDropout dropout{};
};

/// A parameter as rows: a vector [V] as a matrix [V, 1].
inline Tensor as_rows(const Tensor& parameter) {
  const bool vector = parameter && parameter.shape().rank() == 1;
  return vector ? parameter.reshaped({parameter.size(), 1}) : parameter;
}

/// For rules of ops that read rows of a parameter: queues its gradient, row-sparse if the parameter
/// is. Nothing is done for a value that needs none.
void row_gradient(Var weight, const RowTerms& terms);

}  // namespace carousel
