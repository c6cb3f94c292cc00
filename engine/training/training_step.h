#pragma once

#include <cstdint>
#include <optional>

#include "engine/tape/step_graphs.h"
#include "engine/training/training_run.h"

namespace carousel {

/// What a TrainingStep works with, beside the run it changes.
struct TrainingStepParts {
  const Schedule& schedule;
  std::uint64_t seed = 1;         ///< of masks
  bool tf32 = false;              ///< products of float may round their inputs, on CUDA
  bool graph = false;             ///< on CUDA, a step is one graph when it comes again
  StepGraphs::Tell refused = {};  ///< with graph: hears, once, why none could be
};

/// One step of training after the other: begin() and then either run(), which may launch a graph,
/// or the three passes by hand. All of it is queued, nothing waits for the device. The run must
/// outlive it.
class TrainingStep {
 public:
  TrainingStep(TrainingRun& run, const TrainingStepParts& parts);

  /// Takes the next batch, counts the step, and does what no graph could repeat: the step's number,
  /// its learning rate and how many targets count are copied to the device, and the carried state is
  /// reset where the batch says so.
  void begin();
  void run();

  void forward();
  void backward();  ///< the gradients, and the states carried into the next window
  void update();    ///< the optimiser's

  const Batch& batch() const { return batch_; }
  const Tensor& means() const { return means_; }  ///< [K] of the objective's terms
  /// Of the forward pass recorded last: the terms' names and weights hold for launched graphs too.
  const Objective& objective() const { return objective_; }
  /// Of the run's step, as the schedule has it; the batch's factor is not in it.
  double learning_rate() const;
  /// What forward() and backward() recorded last, be it in run(). A launched graph records nothing;
  /// what it computes lies where its capture put it.
  const Tape& tape() const { return tape_; }
  /// What the step in hand has in common with those that the same graph can run.
  StepGraphs::Key key() const;
  /// Free between steps.
  Arena& arena() { return arena_; }
  const StepGraphs& graphs() const { return graphs_; }

 private:
  TrainingRun& run_;
  TrainingStepParts parts_;
  Arena arena_;
  Tape tape_;
  StepGraphs graphs_;  ///< after the arena, whose memory they use
  // [1] each, on the device: what changes from step to step.
  Tensor number_, rate_, denominator_;
  Batch batch_;
  Objective objective_;
  Tensor means_;
  std::optional<Pass> pass_;
};

}  // namespace carousel
