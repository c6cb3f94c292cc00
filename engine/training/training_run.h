#pragma once

#include <cstdint>
#include <limits>

#include "engine/batches/batches.h"
#include "engine/model/model.h"
#include "engine/training/checkpoint.h"
#include "engine/training/optimizer.h"
#include "engine/training/schedule.h"

namespace carousel {

/// Everything training changes, and so everything a checkpoint holds. New training state belongs
/// here and in the two functions below.
struct TrainingRun {
  Model& model;
  Optimizer& optimizer;
  BatchSource& data;
  State state;
  PlateauState plateau{};
  AverageTrigger trigger{};
  std::int64_t step = 0;    ///< optimiser steps done
  std::int64_t tokens = 0;  ///< targets or labels trained on
  double seconds = 0;       ///< spent training, over all sessions; the one thing a
                            ///< checkpoint leaves out, for equal runs have equal checkpoints
  double best = std::numeric_limits<double>::infinity();  ///< lowest Evaluation::cost()
  std::int64_t evaluations_without_best = 0;
  std::int64_t evaluated = 0;  ///< step of the last evaluation
};

/// A model's weights as its checkpoints name them.
std::vector<NamedTensor> named_weights(const Parameters& parameters);

/// What the checkpoint of this moment holds. `metadata` says what the weights mean. Once the average of
/// the weights has begun, it is the checkpoint's model, and the weights are part of the state.
CheckpointData checkpoint_data(const TrainingRun& run, const Metadata& metadata);

/// Continues where the checkpoint stopped, bit for bit. FormatError if it belongs to a run of
/// another model, optimiser or data; then the run may be half restored and must not be used.
void restore(TrainingRun& run, const SavedCheckpoint& saved);

}  // namespace carousel
