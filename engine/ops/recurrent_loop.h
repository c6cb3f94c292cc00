#pragma once

#include <memory>
#include <span>

#include "engine/ops.h"

namespace carousel {

/// A recurrent layer in a loop over time steps that the caller makes, for a step's input depends on the
/// layer's output before. The values are those of recurrent_sequence(), and so are the gradients; but
/// those of W_ih, W_hh and the biases are made once, of all steps, after the rules of all steps: a
/// product for each step would read and write the whole gradient each time.
///
/// Steps that this does not pay for, or for which it has no sum (cells of several products or split
/// gates; projections, blocks, layer normalization, learnt initial states, sequences that restart or
/// end, a dropped operand, another weight than the first step's), are recorded by recurrent_sequence().
///
/// Memory: on the tape, the inputs, h before and gate gradients of all steps side by side.
class RecurrentLoop {
 public:
  /// The next step of x [1, B, E]; all as of recurrent_sequence(). One loop belongs to one recording.
  RecurrentOutput step(CellKind cell, Var x, const RecurrentParameters& parameters,
                       std::span<const Var> initial, const RecurrentPath& path);

 private:
  struct Sums;
  void begin(Tape& tape, const RecurrentParameters& parameters);
  bool covers(const Var& x, const RecurrentParameters& parameters) const;

  std::shared_ptr<Sums> sums_;  ///< the tape's rule has it too
};

}  // namespace carousel
