#include "engine/training/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"
#include "kernels/common/range.h"

namespace carousel {
namespace {

/// The first `count` entries of a tensor. Waits for the device.
std::vector<float> host_values(const Tensor& tensor, std::int64_t count) {
  const Tensor part = tensor.slice(0, count);
  std::vector<float> values(static_cast<std::size_t>(part.size()));
  copy_to_host(part, values.data());
  return values;
}

}  // namespace

Trainer::Trainer(TrainingRun& run, const TrainerParts& parts)
    : run_(run),
      config_(parts.config),
      parts_(parts),
      device_(run.model.parameters().flat_weights().device()),
      step_(run, parts.step),
      norms_(device_, {config_.report_every}, DType::f32),
      reported_step_(run.step),
      reported_tokens_(run.tokens),
      reported_at_(Clock::now()),
      last_saved_(run.step) {}

void Trainer::queue_step() {
  const Range range("training step");
  begun_.push_back(run_.data.position());
  step_.begin();
  step_.run();
  const std::int64_t slot = run_.step - 1 - reported_step_;
  if (!losses_) losses_ = Tensor(device_, {config_.report_every, step_.means().size()}, DType::f32);
  copy(step_.means(), losses_.slice(slot, 1));
  copy(run_.optimizer.gradient_norm(), norms_.slice(slot, 1));
}

Report Trainer::measure() {
  const std::int64_t count = run_.step - reported_step_;
  const auto losses = host_values(losses_, count);  // waits for the device
  const auto norms = host_values(norms_, count);
  const std::vector<LossTerm>& terms = step_.objective().terms;
  std::vector<Score> means;
  for (const LossTerm& term : terms) means.push_back({.name = term.name});
  double loss = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto slot = static_cast<std::size_t>(i);
    bool finite = std::isfinite(norms[slot]);
    for (std::size_t k = 0; k < terms.size(); ++k) {
      const auto value = static_cast<double>(losses[slot * terms.size() + k]);
      finite = finite && std::isfinite(value);
      means[k].value += value / static_cast<double>(count);
      loss += static_cast<double>(terms[k].weight) * value;
    }
    if (!finite) explain_divergence(reported_step_ + i + 1);
  }
  const double elapsed = std::chrono::duration<double>(Clock::now() - reported_at_).count();
  run_.seconds += elapsed;
  Report report{
      .step = run_.step,
      .epoch = run_.data.position().epoch,
      .tokens = run_.tokens,
      .seconds = run_.seconds,
      .loss = loss / static_cast<double>(count),
      .terms = terms.size() > 1 ? means : std::vector<Score>(),
      .gradient_norm = static_cast<double>(norms.back()),
      .learning_rate = step_.learning_rate(),
      .tokens_per_second = static_cast<double>(run_.tokens - reported_tokens_) / elapsed,
      .validation = {},
  };
  reported_step_ = run_.step;
  reported_tokens_ = run_.tokens;
  begun_.clear();
  return report;
}

void Trainer::evaluate_into(Report& report) {
  AveragedWeights& average = run_.optimizer.average();
  if (average.begun()) report.averaged = run_.step - run_.trigger.first + 1;
  average.exchange();
  const Evaluation& result = report.validation.emplace(
      evaluate(run_.model, *parts_.validation, step_.arena(), parts_.metrics));
  average.exchange();
  run_.evaluated = run_.step;
  new_best_ = result.cost() < run_.best;
  if (new_best_) run_.best = result.cost();
  run_.evaluations_without_best = new_best_ ? 0 : run_.evaluations_without_best + 1;
  run_.plateau = updated(run_.plateau, parts_.step.schedule, result.cost());
  run_.trigger =
      updated(run_.trigger, run_.optimizer.config().average_after, result.cost(), run_.step);
  if (run_.trigger.first != 0 && !average.begun()) average.begin(run_.trigger.first);
}

void Trainer::sample() {
  run_.optimizer.average().exchange();
  parts_.observer.on_sample(run_);
  run_.optimizer.average().exchange();
}

void Trainer::explain_divergence(std::int64_t bad_step) {
  // The optimiser has changed nothing since that step, so its weights are still here: go back to
  // its batch and look at everything the step computes.
  const DataPosition& begun = begun_[static_cast<std::size_t>(bad_step - 1 - reported_step_)];
  run_.data.seek(begun);
  run_.step = bad_step - 1;
  run_.state.reset();
  step_.begin();
  std::string tensor;
  for (std::size_t k = 0; k < step_.micro_batches() && tensor.empty(); ++k) {
    step_.forward(k);
    step_.backward(k);
    tensor = step_.tape().first_non_finite();
  }
  throw Error(fmt::format(
      "training: the loss or the gradient of step {} is not a finite number; first such tensor: "
      "{}. Nothing was saved since step {}; a lower optimizer.learning_rate or clip_norm may help",
      bad_step, tensor.empty() ? "the state carried into its window" : tensor, last_saved_));
}

void Trainer::save() {
  const Range range("checkpoint");
  if (parts_.before_save) parts_.before_save();
  parts_.observer.before_save();
  parts_.checkpoints.save(run_.step, checkpoint_data(run_, parts_.metadata), new_best_);
  last_saved_ = run_.step;
  parts_.observer.on_save(run_.step, new_best_);
}

bool Trainer::out_of_patience() const {
  return config_.patience > 0 && run_.evaluations_without_best >= config_.patience;
}

bool Trainer::anything_due() const {
  return run_.step < config_.steps ||
         (parts_.validation != nullptr && run_.evaluated < run_.step && !out_of_patience());
}

TrainEnd Trainer::train(const std::atomic<bool>& stop) {
  TrainEnd end = out_of_patience() ? TrainEnd::early : TrainEnd::finished;
  if (run_.step >= config_.steps && anything_due()) {
    Report report{.step = run_.step, .terms = {}, .validation = {}, .belated = true};
    evaluate_into(report);
    parts_.observer.on_report(report);
    save();
  }
  reported_at_ = Clock::now();
  while (run_.step < config_.steps && end == TrainEnd::finished) {
    queue_step();
    parts_.observer.on_step(run_, step_.arena());
    const auto due = [&](std::int64_t period) {
      return run_.step == config_.steps || (period > 0 && run_.step % period == 0);
    };
    if (stop && run_.step < config_.steps) end = TrainEnd::interrupted;
    // Also in an interrupted run: a resumed one does not come back to this step, and best score,
    // patience and plateau must be those of a run that was not interrupted.
    const bool evaluating = parts_.validation != nullptr && due(config_.evaluate_every);
    const bool sampling = config_.sample_every > 0 && run_.step % config_.sample_every == 0;
    const bool stopping = end != TrainEnd::finished;
    // Nothing is evaluated, sampled or saved before it was seen to be finite.
    if (run_.step == 1 || due(config_.report_every) || due(config_.save_every) || evaluating ||
        sampling || stopping || run_.step - reported_step_ == config_.report_every) {
      Report report = measure();
      new_best_ = false;
      if (evaluating) evaluate_into(report);
      parts_.observer.on_report(report);
      if (out_of_patience()) end = TrainEnd::early;
      if (new_best_ || due(config_.save_every) || end != TrainEnd::finished) save();
      if (sampling) sample();
      reported_at_ = Clock::now();
    }
  }
  return end;
}

}  // namespace carousel
