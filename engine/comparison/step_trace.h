#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/training/training_step.h"

namespace carousel {

enum class Phase : std::uint8_t { forward, backward, update, replay };
const char* name(Phase phase);

/// A tensor that a training step computed, on the host.
struct TracedTensor {
  std::string name{};  ///< unique in its trace: "lstm layer 1, gate f", "gradient of output.bias"
  Phase phase = Phase::forward;
  Axes axes = Axes::parameter;
  /// Place in the order of computation. Sequences of one stage are computed together, a time step
  /// after the other: forwards from 0, backwards from T − 1.
  int stage = 0;
  /// What the contracts of all ops on the way to this value allow together: their root sum of
  /// squares, for errors of different ops are independent.
  Tolerances tolerance{};
  Tolerance rounded_inputs{};  ///< of those ops together, on top between f32 and bf16
  Shape shape{};
  std::vector<float> values{};
};

/// What a training step computed, in order.
using Trace = std::vector<TracedTensor>;

/// One side of a comparison: training as the Trainer does it, one step at a time and in parts, with all
/// values of a step read back to the host. The run must outlive it.
class TracedTraining {
 public:
  TracedTraining(TrainingRun& run, const TrainingStepParts& parts) : run_(run), step_(run, parts) {}

  /// Begins the next step, of so many micro-batches. Each has a forward and then a backward pass.
  std::size_t begin();
  Trace forward(std::size_t micro_batch);
  /// Adds to the trace of the forward pass.
  Trace backward(std::size_t micro_batch, Trace trace);
  /// The rest of the step: the optimiser's.
  Trace update();
  /// All passes of the next step; the trace is that of its last micro-batch.
  Trace gradients();
  /// The whole step at once, which may be a graph, and the values that are still there afterwards:
  /// without those that the backward pass overwrites, and without the state before the window.
  Trace whole_step();
  /// The whole step, untraced.
  void step();
  /// Of the last step: the loss in nats per target, and the norm before clipping.
  struct Result {
    double loss = 0, gradient_norm = 0, learning_rate = 0;
  };
  Result result() const;

  /// The next step begins with the weights, optimiser state and recurrent state of `other`, which
  /// may be on another device and of another precision.
  void start_as(const TracedTraining& other) const;
  /// Between the passes: the backward pass takes what the forward pass of `other` computed for its own.
  void take_values(const TracedTraining& other) const;
  /// The update takes the gradients of `other` for its own.
  void take_gradients(const TracedTraining& other) const;

  const TrainingRun& run() const { return run_; }
  const StepGraphs& graphs() const { return step_.graphs(); }
  /// What whole_step() leaves out because the backward pass writes over it.
  const std::set<std::string>& overwritten() const { return overwritten_; }

 private:
  using Values = std::vector<LabelledValue>;
  void add_forward(Trace& trace, const Values& values) const;
  void add_carried(Trace& trace) const;
  void add_update(Trace& trace) const;
  Values standing_values();

  TrainingRun& run_;
  TrainingStep step_;
  std::map<StepGraphs::Key, Values> standing_;  ///< the tape's values after a step, by graph
  std::set<std::string> overwritten_;
};

}  // namespace carousel
