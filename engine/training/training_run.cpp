#include "engine/training/training_run.h"

#include <cmath>
#include <string>

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
  if (run.optimizer.average().begun()) {
    for (const NamedTensor& weight : named_weights(run.model.parameters())) {
      result.push_back({"weight." + weight.name, weight.tensor});
    }
  }
  return result;
}

/// What others take for the model's weights.
std::vector<NamedTensor> model_of(const TrainingRun& run) {
  std::vector<NamedTensor> result = named_weights(run.model.parameters());
  const AveragedWeights& average = run.optimizer.average();
  for (std::size_t i = 0; i < result.size() && average.begun(); ++i)
    result[i].tensor = average.of(i);
  return result;
}

void save(const AverageTrigger& trigger, Scalars& scalars) {
  scalars.set("average.first", trigger.first);
  scalars.set("average.lowest", trigger.lowest);
  scalars.set("average.recent", static_cast<std::int64_t>(trigger.recent.size()));
  for (std::size_t i = 0; i < trigger.recent.size(); ++i) {
    scalars.set("average.recent." + std::to_string(i), trigger.recent[i]);
  }
}

/// A score or a cost, which may be infinite before there was any.
double score(const Scalars& scalars, const std::string& name) {
  const double value = scalars.real(name);
  if (std::isnan(value)) scalars.refuse(name, "a number");
  return value;
}

std::int64_t step_up_to(std::int64_t last, const Scalars& scalars, const std::string& name) {
  const std::int64_t step = scalars.count(name);
  if (step > last) scalars.refuse(name, "a step up to the checkpoint's");
  return step;
}

PlateauState saved_plateau(const Scalars& scalars) {
  const PlateauState plateau{.best = score(scalars, "plateau.best"),
                             .bad_evaluations = scalars.count("plateau.bad_evaluations"),
                             .factor = scalars.real("plateau.factor")};
  if (!(plateau.factor >= 0 && plateau.factor <= 1)) {
    scalars.refuse("plateau.factor", "a number from 0 to 1");
  }
  return plateau;
}

AverageTrigger saved_trigger(const Scalars& scalars, std::int64_t step) {
  AverageTrigger trigger{.lowest = score(scalars, "average.lowest"),
                         .first = step_up_to(step, scalars, "average.first")};
  for (std::int64_t i = 0; i < scalars.count("average.recent"); ++i) {
    trigger.recent.push_back(scalars.real("average.recent." + std::to_string(i)));
  }
  return trigger;
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
  CheckpointData data{
      .weights = model_of(run), .state = state_of(run), .metadata = metadata, .scalars = {}};
  Scalars& scalars = data.scalars;
  scalars.set("tokens", run.tokens);
  scalars.set("best_loss", run.best);
  scalars.set("evaluations_without_best", run.evaluations_without_best);
  scalars.set("evaluated", run.evaluated);
  scalars.set("plateau.best", run.plateau.best);
  scalars.set("plateau.bad_evaluations", run.plateau.bad_evaluations);
  scalars.set("plateau.factor", run.plateau.factor);
  if (run.optimizer.config().average_after > 0) save(run.trigger, scalars);
  const DataPosition position = run.data.position();
  scalars.set("data.epoch", position.epoch);
  scalars.set("data.index", position.index);
  return data;
}

void restore(TrainingRun& run, const SavedCheckpoint& saved) {
  const Scalars& scalars = saved.scalars();
  if (run.optimizer.config().average_after > 0) {
    run.trigger = saved_trigger(scalars, saved.step());
    if (run.trigger.first != 0) run.optimizer.average().restore(run.trigger.first);
  }
  saved.restore_weights(model_of(run));
  saved.restore_state(state_of(run));  // last: a frozen parameter is in both
  run.model.parameters().refresh_working();
  run.step = saved.step();
  run.tokens = scalars.count("tokens");
  run.best = score(scalars, "best_loss");
  run.evaluations_without_best = scalars.count("evaluations_without_best");
  // A checkpoint that does not say it was written by a run that evaluated whenever it was due.
  run.evaluated =
      scalars.contains("evaluated") ? step_up_to(run.step, scalars, "evaluated") : run.step;
  run.plateau = saved_plateau(scalars);
  run.data.seek({.epoch = scalars.count("data.epoch"), .index = scalars.count("data.index")});
}

}  // namespace carousel
