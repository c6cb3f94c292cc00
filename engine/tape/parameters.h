#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/tape/initializer.h"
#include "engine/tape/tape.h"

namespace carousel {

/// The weights of a model, named as PyTorch's modules name theirs. All of them lie in one float
/// buffer, their gradients in a second and, for bf16, the copies the products read in a third, so
/// that an optimiser step or a norm is one launch. A model first declares its parameters, then
/// `materialize` gives them memory and values.
class Parameters {
 public:
  /// Declares a parameter and returns its index. Names are unique.
  std::size_t declare(std::string name, Shape shape, Initializer initializer);

  /// Allocates and initialises. `compute` is the storage type of the products: f32, or bf16, in
  /// which case matrices are read through a rounded copy while the float weights stay the truth.
  void materialize(const Device& device, DType compute, std::uint64_t seed);

  /// The parameter on a tape, the same Var however often it is asked for in a step, so that uses
  /// of one weight in two places (tied embeddings) share their gradient. Matrices come in the
  /// compute type, vectors (biases) in float.
  Var on(Tape& tape, std::size_t index);

  std::size_t count() const { return entries_.size(); }
  const std::string& name(std::size_t index) const { return entries_[index].name; }
  const Tensor& weight(std::size_t index) const { return entries_[index].weight; }
  const Tensor& gradient(std::size_t index) const { return entries_[index].gradient; }
  DType compute_type() const { return compute_; }
  std::int64_t element_count() const;  ///< numbers a user would count, without padding

  const Tensor& flat_weights() const { return weights_; }      ///< [N] f32, padding is zero
  const Tensor& flat_gradients() const { return gradients_; }  ///< [N] f32
  const Tensor& flat_working() const { return working_; }      ///< [N] bf16; empty for f32

  /// What belongs to one parameter in a buffer laid out as flat_weights(), such as a moment.
  Tensor part_of(const Tensor& flat, std::size_t index) const;

  /// Rounds the weights into the bf16 copy: after they were loaded. (Optimisers do it as they
  /// update.)
  void refresh_working() const;
  /// Sets gradients that no rule wrote in this step to zero.
  void zero_unreached(const Tape& tape) const;

 private:
  struct Entry {
    std::string name;
    Shape shape;
    Initializer initializer;
    Tensor weight, gradient, working;
    Var var;
  };
  std::vector<Entry> entries_;
  DType compute_ = DType::f32;
  Tensor weights_, gradients_, working_;
  std::uint64_t generation_ = 0;  ///< of the tape that the entries' Vars are on
};

}  // namespace carousel
