#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/tape/step_graphs.h"
#include "engine/training/training_run.h"

namespace carousel {

/// What a TrainingStep works with, beside the run it changes.
struct TrainingStepParts {
  const Schedule& schedule;
  std::uint64_t seed = 1;         ///< of masks
  std::int64_t accumulate = 1;    ///< micro-batches of a step; the run's state has the rows of all
  bool tf32 = false;              ///< products of float may round their inputs, on CUDA
  bool graph = false;             ///< on CUDA, a step is one graph when it comes again
  StepGraphs::Tell refused = {};  ///< with graph: hears, once, why none could be
};

/// One step of training after the other: begin() and then either run(), which may launch a graph,
/// or the three passes by hand. All of it is queued, nothing waits for the device. The run must
/// outlive it.
///
/// A step has `accumulate` micro-batches, which share the state's rows in order. Each has a forward
/// and a backward pass; the gradients are summed up, and every loss is divided by what counts in all
/// of them. That is the step of one batch with all the rows, but for the masks and the order of sums.
class TrainingStep {
 public:
  /// ConfigError for several micro-batches of a model with row-sparse parameters.
  TrainingStep(TrainingRun& run, const TrainingStepParts& parts);

  /// Takes the next batches, counts the step, and does what no graph could repeat: the step's number,
  /// its learning rate and how many targets count are copied to the device, and the carried state is
  /// reset where the batch says so.
  void begin();
  void run();

  std::size_t micro_batches() const { return batches_.size(); }
  void forward(std::size_t micro_batch = 0);
  void backward(std::size_t micro_batch = 0);  ///< gradients, and states for the next window
  void update();                               ///< the optimiser's

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
  std::vector<Batch> batches_;  ///< of the step's micro-batches
  std::vector<State> states_;   ///< their rows of the run's state
  Objective objective_;
  Tensor means_;
  Tensor sums_;  ///< of the means of several micro-batches
  std::optional<Pass> pass_;
};

}  // namespace carousel
