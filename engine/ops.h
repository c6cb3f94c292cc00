#pragma once

#include "engine/tape.h"
#include "kernels/common/random.h"

// The vocabulary of models: one declaration and one sentence per differentiable op. What an op
// computes, and what it does with bad input, stands in its contract, kernels/<op>/<op>.h.
//
// Shapes are written slowest dimension first, and tensors are contiguous. T time steps, B batch,
// N rows (T·B when flattened), V vocabulary, E embedding width, H hidden width, A attention heads,
// D head width, S state width of an SSM, K filter length. Sequences are time-major, [T, B, ...].
namespace carousel {

/// Sets elements of x to zero with the given probability and scales up the others; x itself at 0.
Var dropout(Var x, float drop_probability, const RandomSource& source);

/// Rows of a parameter [V, E] for token [T, B]: [T, B, E].
Var embedding(Var weight, const Tensor& token);

}  // namespace carousel
