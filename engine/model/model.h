#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/batches/batches.h"
#include "engine/ops.h"
#include "engine/tape/parameters.h"

namespace carousel {

/// What a recurrent model carries from one window to the next: tensors at fixed addresses, named
/// for the checkpoint.
struct RecurrentState {
  std::vector<std::pair<std::string, Tensor>> tensors;

  void zero() const;
};

/// One forward (and backward) pass: the tape it is recorded on, its random numbers, and the states
/// it leaves behind.
class Pass {
 public:
  Pass(Tape& tape, RandomSource random) : tape_(tape), random_(random) {}

  Tape& tape() const { return tape_; }
  /// False in evaluation and generation: dropout is off.
  bool training() const { return tape_.recording(); }
  /// The random numbers of one place in the model; places are numbered by the model.
  RandomSource random(std::uint64_t place) const;

  /// `to` becomes `from` once the pass is over. Not at once: the backward pass still reads the
  /// state the window began with.
  void carry(const Tensor& from, const Tensor& to) { carried_.emplace_back(from, to); }
  void finish() const;

 private:
  Tape& tape_;
  RandomSource random_;
  std::vector<std::pair<Tensor, Tensor>> carried_;
};

/// What the trainer, the evaluator and the generator need of a model.
class Model {
 public:
  virtual ~Model() = default;

  virtual Parameters& parameters() = 0;
  /// Zero states for `batch` parallel sequences.
  virtual RecurrentState initial_state(std::int64_t batch) const = 0;
  /// Mean loss in nats per target token, recorded on the pass's tape. `state` is what the last
  /// window left; the pass carries this window's final state into it (truncated BPTT: values carry
  /// on, gradients stop).
  virtual Loss loss(Pass& pass, const Batch& batch, const RecurrentState& state) = 0;
  /// Logits [B, V] after one more token [1, B] per sequence. Carries the state.
  virtual Tensor next_logits(Pass& pass, const Tensor& token, const RecurrentState& state) = 0;
};

}  // namespace carousel
