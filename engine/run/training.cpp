#include "engine/run/training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "engine/batches/micro_batches.h"
#include "engine/run/fitting.h"
#include "engine/run/opened_run.h"
#include "engine/run/trained_model.h"
#include "engine/training/parameter_groups.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// What a resumed run has changed, and where the learning rate does not go on as it would have.
std::vector<std::string> changes_of(const Resumed& resumed, const RunConfig& now,
                                    const TrainingRun& run) {
  if (resumed.changes.empty()) return {};
  std::vector<std::string> result{fmt::format("resumed with {}", fmt::join(resumed.changes, "; "))};
  const std::int64_t next = run.step + 1;
  const RunConfig& before = resumed.config;
  // Where the run ended before, compared at that step: a schedule that is extended may not jump.
  const std::int64_t step = std::min(next, before.train.steps);
  const double was = learning_rate(before.schedule, step);
  if (was != learning_rate(now.schedule, step) && next <= now.train.steps) {
    result.push_back(fmt::format("the learning rate goes on at {:.3g}, not {:.3g}",
                                 learning_rate(now.schedule, next) * run.plateau.factor,
                                 was * run.plateau.factor));
  }
  return result;
}

std::unique_ptr<Model> model_to_train(const RunConfig& config, const Corpus& corpus,
                                      const Device& device) {
  std::unique_ptr<Model> model = config.model->make(
      corpus.vocabularies, device, compute_type(config.machine.precision), config.seed());
  group(model->parameters(), parameter_groups(config.optimizer.groups));
  return model;
}

std::unique_ptr<BatchSource> batches_to_train(const RunConfig& config, const Corpus& corpus,
                                              const Device& device) {
  SamplerOptions options = config.sampler_options(device, true);
  std::vector<std::unique_ptr<BatchSource>> shares;
  options.share.world = options.sources = config.train.accumulate;
  for (auto& rank = options.share.rank; rank < options.share.world; ++rank) {
    shares.push_back(config.entry->sampler(corpus, corpus.train, options));
  }
  return shares.size() == 1 ? std::move(shares.front()) : in_turn(std::move(shares));
}

}  // namespace

std::optional<Score> best_score(const RunConfig& config, const Vocabularies& vocabularies,
                                double cost) {
  if (!std::isfinite(cost)) return {};
  const Metrics metrics = config.entry->metrics(vocabularies);
  Score score = metrics.front()->decisive();
  score.value = metrics.front()->higher_is_better() ? -cost : cost;
  return score;
}

Training::Training(const RunConfig& of, const Corpus& data, const Device& on)
    : config(of),
      corpus(data),
      device(on),
      model(model_to_train(config, corpus, device)),
      optimizer(config.optimizer, model->parameters()),
      batches(batches_to_train(config, corpus, device)),
      run{.model = *model,
          .optimizer = optimizer,
          .data = *batches,
          .state = model->initial_state(config.train.batch * config.train.accumulate)} {}

BatchSource* Training::validation() const {
  if (!validation_ && !corpus.validation.empty()) {
    SamplerOptions options = config.sampler_options(device, false);
    options.windows = model->reading_windows();
    validation_ = config.entry->sampler(corpus, corpus.validation, options);
  }
  return validation_.get();
}

MakeMetrics Training::metrics() const {
  return [this] { return config.entry->metrics(corpus.vocabularies); };
}

TrainingStepParts Training::step_parts(bool graph, StepGraphs::Tell refused) const {
  return {.schedule = config.schedule,
          .seed = config.seed(),
          .accumulate = config.train.accumulate,
          .tf32 = config.machine.precision == Precision::tf32,
          .graph = graph,
          .refused = std::move(refused)};
}

RunStatus Training::status() const {
  RunStatus status{.config = config,
                   .corpus = corpus,
                   .device = device,
                   .model = *model,
                   .batches = batches.get(),
                   .validation = validation(),
                   .step = run.step,
                   .tokens = run.tokens,
                   .seconds = run.seconds};
  status.best = best_score(config, corpus.vocabularies, run.best);
  return status;
}

const std::atomic<bool>& TrainOptions::stop_flag() const {
  static const std::atomic<bool> never{false};
  return stop != nullptr ? *stop : never;
}

RunEnd train(const RunConfig& config, const std::filesystem::path& path,
             const TrainOptions& options) {
  OpenedRun opened(config, path, options.resume);
  if (config.entry->fits) return fit(opened, options);
  const Corpus& corpus = opened.corpus;
  const Resumed* const former = opened.former.get();
  Training training(config, corpus, opened.device);
  TrainingRun& run = training.run;
  std::vector<std::string> notices = opened.start.give(corpus.vocabularies, *training.model);
  if (former != nullptr) restore(run, former->saved);
  opened.write_config();

  RunMetrics observer(opened.metrics_file(), former != nullptr ? run.step : -1, options.observer);
  if (former != nullptr) run.seconds = observer.seconds();
  const Metadata metadata = run_metadata(config, corpus.vocabularies);
  Trainer trainer(run, {.config = config.train,
                        .step = training.step_parts(
                            config.machine.graph,
                            [&](const std::string& why) { observer.on_graph_refused(why); }),
                        .validation = training.validation(),
                        .metrics = training.metrics(),
                        .metadata = metadata,
                        .checkpoints = opened.checkpoints,
                        .observer = observer,
                        .before_save = [&] { opened.find_folder(observer); }});
  if (options.begin) options.begin(training.status());
  const auto also = former != nullptr ? changes_of(*former, config, run) : config.without_effect();
  notices.insert(notices.end(), also.begin(), also.end());
  notices.insert(notices.end(), corpus.notices.begin(), corpus.notices.end());
  for (const std::string& notice : notices) observer.on_notice(notice);
  if (training.validation() == nullptr && config.optimizer.average_after > 0) {
    throw ConfigError(
        "optimizer.average_after is set and there is no text to validate on, which decides when "
        "averaging begins");
  }
  opened.checkpoints.expect_room(checkpoint_data(run, metadata));
  const bool nothing_to_do = !trainer.anything_due();
  const TrainEnd how = [&] {
    try {
      return trainer.train(options.stop_flag());
    } catch (const IoError&) {
      opened.folder.keep();
      throw;
    }
  }();
  const RunEnd end = nothing_to_do                  ? RunEnd::nothing_to_do
                     : how == TrainEnd::interrupted ? RunEnd::interrupted
                     : how == TrainEnd::early       ? RunEnd::early
                                                    : RunEnd::finished;
  if (options.end) options.end(training.status(), end, opened.folder.path());
  return end;
}

}  // namespace carousel
