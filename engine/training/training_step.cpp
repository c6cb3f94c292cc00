#include "engine/training/training_step.h"

#include "kernels/common/range.h"

namespace carousel {

TrainingStep::TrainingStep(TrainingRun& run, const TrainingStepParts& parts)
    : run_(run),
      parts_(parts),
      arena_(run.model.parameters().flat_weights().device()),
      tape_(arena_, true),
      graphs_(arena_.device(), parts.graph, parts.refused),
      number_(arena_.device(), {1}, DType::i64),
      rate_(arena_.device(), {1}, DType::f32),
      denominator_(arena_.device(), {1}, DType::f32) {
  tape_.allow_tf32(parts.tf32);
}

double TrainingStep::learning_rate() const {
  return carousel::learning_rate(parts_.schedule, run_.step) * run_.plateau.factor;
}

void TrainingStep::begin() {
  batch_ = run_.data.next();
  ++run_.step;
  run_.tokens += batch_.counted;
  copy_from_host(number_, &run_.step);
  const auto rate = static_cast<float>(learning_rate() * batch_.learning_rate_factor);
  copy_from_host(rate_, &rate);
  const auto counted = static_cast<float>(batch_.counted);
  copy_from_host(denominator_, &counted);
  if (batch_.first) run_.state.reset();
}

void TrainingStep::run() {
  means_ = graphs_.run(key(), [&] {
    forward();
    backward();
    update();
    return means_;
  });
}

void TrainingStep::forward() {
  const Range range("forward");
  tape_.clear();
  arena_.reset();
  pass_.emplace(
      tape_, Pass::Options{.random = {.seed = parts_.seed, .step = number_.view<std::int64_t, 1>()},
                           .denominator = denominator_});
  objective_ = run_.model.objective(*pass_, batch_, run_.state);
  means_ = objective_.means(tape_);
}

void TrainingStep::backward() {
  const Range range("backward");
  tape_.backward();
  run_.model.parameters().zero_unreached(tape_);
  pass_->finish();
}

void TrainingStep::update() {
  const Range range("optimizer");
  run_.optimizer.step(rate_, number_, means_);
}

StepGraphs::Key TrainingStep::key() const {
  // Weights, optimiser and arena stay where they are as long as this lives.
  StepGraphs::Key key;
  const auto add = [&](const Tensor& tensor) {
    key.push_back(reinterpret_cast<std::uintptr_t>(tensor.data()));
  };
  for (const Field& field : batch_.fields) {
    const Shape& shape = field.values.shape();
    for (int i = 0; i < shape.rank(); ++i) key.push_back(static_cast<std::uintptr_t>(shape[i]));
    add(field.values);
    add(field.lengths);
  }
  add(batch_.reset);
  for (const StateTensor& tensor : run_.state.tensors) {
    add(tensor.value);
    add(tensor.position);
  }
  return key;
}

}  // namespace carousel
