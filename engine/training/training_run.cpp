#include "engine/training/training_run.h"

#include "kernels/common/check.h"

namespace carousel {
namespace {

std::vector<NamedTensor> state_of(const TrainingRun& run) {
  std::vector<NamedTensor> result;
  for (const auto& [name, tensor] : run.optimizer.state()) {
    result.push_back({"optimizer." + name, tensor});
  }
  for (const StateTensor& tensor : run.state.tensors) {
    result.push_back({"state." + tensor.name, tensor.value});
    if (tensor.position) result.push_back({"state." + tensor.name + ".position", tensor.position});
  }
  return result;
}

}  // namespace

std::vector<NamedTensor> named_weights(const Parameters& parameters) {
  std::vector<NamedTensor> result;
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    result.push_back({parameters.name(i), parameters.weight(i)});
  }
  return result;
}

CheckpointData checkpoint_data(const TrainingRun& run, const Metadata& metadata) {
  CheckpointData data{.weights = named_weights(run.model.parameters()),
                      .state = state_of(run),
                      .metadata = metadata,
                      .scalars = {}};
  Scalars& scalars = data.scalars;
  scalars.set("tokens", run.tokens);
  scalars.set("best_loss", run.best);
  scalars.set("evaluations_without_best", run.evaluations_without_best);
  scalars.set("plateau.best", run.plateau.best);
  scalars.set("plateau.bad_evaluations", run.plateau.bad_evaluations);
  scalars.set("plateau.factor", run.plateau.factor);
  const DataPosition position = run.data.position();
  scalars.set("data.epoch", position.epoch);
  scalars.set("data.index", position.index);
  return data;
}

void restore(TrainingRun& run, const SavedCheckpoint& saved) {
  const auto weights = named_weights(run.model.parameters()), state = state_of(run);
  saved.restore_weights(weights);
  saved.restore_state(state);
  run.model.parameters().refresh_working();
  const Scalars& scalars = saved.scalars();
  run.step = saved.step();
  run.tokens = scalars.integer("tokens");
  run.best = scalars.real("best_loss");
  run.evaluations_without_best = scalars.integer("evaluations_without_best");
  run.plateau = {.best = scalars.real("plateau.best"),
                 .bad_evaluations = scalars.integer("plateau.bad_evaluations"),
                 .factor = scalars.real("plateau.factor")};
  run.data.seek({.epoch = scalars.integer("data.epoch"), .index = scalars.integer("data.index")});
}

}  // namespace carousel
