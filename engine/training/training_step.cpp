#include "engine/training/training_step.h"

#include <fmt/format.h>

#include "kernels/combine/combine.h"
#include "kernels/common/check.h"
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
      denominator_(arena_.device(), {1}, DType::f32),
      batches_(static_cast<std::size_t>(parts.accumulate)) {
  tape_.allow_tf32(parts.tf32);
  if (parts.accumulate == 1) {
    states_.push_back(run.state);
    return;
  }
  const Parameters& parameters = run.model.parameters();
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    if (parameters.row_gradient(i) == nullptr) continue;
    throw ConfigError(
        fmt::format("train.accumulate is {}, and {} has a row-sparse gradient, of "
                    "which a step has one",
                    parts.accumulate, parameters.name(i)));
  }
  for (std::int64_t k = 0; k < parts.accumulate; ++k) {
    const std::int64_t rows = run.state.tensors.empty()
                                  ? 0
                                  : run.state.tensors.front().value.shape()[0] / parts.accumulate;
    states_.push_back(run.state.rows(k * rows, rows));
  }
}

double TrainingStep::learning_rate() const {
  return carousel::learning_rate(parts_.schedule, run_.step) * run_.plateau.factor;
}

void TrainingStep::begin() {
  std::int64_t tokens = 0;
  for (Batch& batch : batches_) {
    batch = run_.data.next();
    tokens += batch.counted;
  }
  ++run_.step;
  run_.tokens += tokens;
  copy_from_host(number_, &run_.step);
  const Batch& first = batches_.front();  // the others have its T
  const auto rate = static_cast<float>(learning_rate() * first.learning_rate_factor);
  copy_from_host(rate_, &rate);
  const auto counted = static_cast<float>(tokens);
  copy_from_host(denominator_, &counted);
  if (first.first) run_.state.reset();
}

void TrainingStep::run() {
  means_ = graphs_.run(key(), [&] {
    for (std::size_t k = 0; k < batches_.size(); ++k) {
      forward(k);
      backward(k);
    }
    update();
    return means_;
  });
}

void TrainingStep::forward(std::size_t micro_batch) {
  const Range range("forward");
  tape_.clear();
  tape_.add_gradients(micro_batch > 0);
  arena_.reset();
  pass_.emplace(tape_, Pass::Options{.random = {.seed = parts_.seed,
                                                .stream = std::uint64_t{micro_batch} << 48U,
                                                .step = number_.view<std::int64_t, 1>()},
                                     .denominator = denominator_,
                                     .partial = batches_.size() > 1});
  objective_ = run_.model.objective(*pass_, batches_[micro_batch], states_[micro_batch]);
  means_ = objective_.means(tape_);
  if (batches_.size() == 1) return;
  if (!sums_) sums_ = Tensor(arena_.device(), means_.shape(), DType::f32);
  if (micro_batch == 0) {
    copy(means_, sums_);
  } else {
    carousel::run(arena_.device(), Add<float>{.a = sums_.view<float, 1>(),
                                              .b = means_.view<float, 1>(),
                                              .y = sums_.mutable_view<float, 1>()});
  }
  means_ = sums_;
}

void TrainingStep::backward(std::size_t micro_batch) {
  const Range range("backward");
  tape_.backward();
  if (micro_batch == 0) run_.model.parameters().zero_unreached(tape_);
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
  for (const Batch& batch : batches_) {
    for (const Field& field : batch.fields) {
      const Shape& shape = field.values.shape();
      for (int i = 0; i < shape.rank(); ++i) key.push_back(static_cast<std::uintptr_t>(shape[i]));
      add(field.values);
      add(field.lengths);
    }
    add(batch.reset);
  }
  for (const StateTensor& tensor : run_.state.tensors) {
    add(tensor.value);
    add(tensor.position);
  }
  return key;
}

}  // namespace carousel
