#include "engine/run/training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

#include "engine/batches/micro_batches.h"
#include "engine/run/run_folder.h"
#include "engine/run/run_metrics.h"
#include "engine/run/starting_point.h"
#include "engine/run/trained_model.h"
#include "engine/text/utf8.h"
#include "engine/training/parameter_groups.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// The checkpoint that a run goes on from.
struct Resumed {
  SavedCheckpoint saved;
  RunConfig config;                  ///< that it was trained with
  std::vector<std::string> changes;  ///< of options since then
};

/// The config that a run was trained with. ConfigError if its model is of another kind.
RunConfig former_config(const RunConfig& config, const SavedCheckpoint& saved,
                        const std::string& run) {
  const std::string& text = metadata_text(saved.model(), "carousel.config");
  const ModelEntry& entry = *config.entry;
  const std::string kind = Config::parse(text, run, {}).text("model", "kind", "");
  if (kind != entry.kind && (entry.formerly == nullptr || kind != entry.formerly)) {
    throw ConfigError(fmt::format("--resume: model.kind is {} now, and {} was trained with {}",
                                  entry.kind, run, kind));
  }
  return {text, run, std::span(&entry, 1)};
}

/// Null without a checkpoint: a run that was killed before its first one begins again.
std::unique_ptr<Resumed> resumed(const RunConfig& config, const CheckpointFolder& checkpoints,
                                 const std::string& run) {
  const auto last = checkpoints.last();
  if (!last) return nullptr;
  SavedCheckpoint saved(*last);
  std::unique_ptr<Resumed> result(
      new Resumed{.saved = saved, .config = former_config(config, saved, run), .changes = {}});
  result->changes = config.expect_resumes(result->config, run);
  return result;
}

void expect_same_text(const SavedCheckpoint& saved, const Corpus& corpus, const std::string& run) {
  try {
    Vocabularies::read(saved.metadata(), run).expect_same_tokens(corpus.vocabularies, run);
  } catch (const FormatError& error) {
    throw ConfigError(fmt::format("--resume: the text has changed: {}", error.what()));
  }
}

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

/// A checkpoint holds the config, and its format is JSON.
void expect_utf8(const RunConfig& config) {
  std::istringstream lines(config.toml());
  for (std::string line; std::getline(lines, line);) {
    if (is_utf8(line)) continue;
    const std::size_t equals = line.find(" = ");
    throw ConfigError(fmt::format("{} is {}, expected UTF-8, for a checkpoint holds it",
                                  line.substr(0, equals), escaped(line.substr(equals + 3))));
  }
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
    validation_ =
        config.entry->sampler(corpus, corpus.validation, config.sampler_options(device, false));
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

RunEnd train(const RunConfig& config, const std::filesystem::path& path,
             const TrainOptions& options) {
  const Device device = open_device(config.machine);
  expect_utf8(config);
  RunFolder folder(path, options.resume);
  CheckpointFolder checkpoints(path, static_cast<int>(config.train.keep));
  checkpoints.remove_leftovers();
  const std::unique_ptr<Resumed> former = resumed(config, checkpoints, path.string());
  const StartingPoint start(config, former ? &former->saved : nullptr);
  const Corpus corpus = start.open_corpus((path / "cache").string());
  if (former) expect_same_text(former->saved, corpus, path.string());
  Training training(config, corpus, device);
  TrainingRun& run = training.run;
  std::vector<std::string> notices = start.give(corpus.vocabularies, *training.model);
  if (former) restore(run, former->saved);
  write_file_atomically(path / "config.toml", config.toml());

  RunMetrics observer(path / "metrics.jsonl", former ? run.step : -1, options.observer);
  if (former) run.seconds = observer.seconds();
  if (options.begin) options.begin(training);
  const auto also = former ? changes_of(*former, config, run) : config.without_effect();
  notices.insert(notices.end(), also.begin(), also.end());
  for (const std::string& notice : notices) observer.on_notice(notice);
  if (training.validation() == nullptr && config.optimizer.average_after > 0) {
    throw ConfigError(
        "optimizer.average_after is set and there is no text to validate on, which decides when "
        "averaging begins");
  }
  const Metadata metadata = run_metadata(config, corpus.vocabularies);
  checkpoints.expect_room(checkpoint_data(run, metadata));
  const auto find_folder = [&] {
    const std::string what = folder.find();
    if (what.empty()) return;
    checkpoints.move_to(folder.path());
    observer.move_to(folder.path() / "metrics.jsonl");
    write_file_atomically(folder.path() / "config.toml", config.toml());
    observer.on_notice(what);
  };
  Trainer trainer(run, {.config = config.train,
                        .step = training.step_parts(
                            config.machine.graph,
                            [&](const std::string& why) { observer.on_graph_refused(why); }),
                        .validation = training.validation(),
                        .metrics = training.metrics(),
                        .metadata = metadata,
                        .checkpoints = checkpoints,
                        .observer = observer,
                        .before_save = find_folder});
  static const std::atomic<bool> never{false};
  const bool nothing_to_do = !trainer.anything_due();
  const TrainEnd how = [&] {
    try {
      return trainer.train(options.stop != nullptr ? *options.stop : never);
    } catch (const IoError&) {
      folder.keep();
      throw;
    }
  }();
  const RunEnd end = nothing_to_do                  ? RunEnd::nothing_to_do
                     : how == TrainEnd::interrupted ? RunEnd::interrupted
                     : how == TrainEnd::early       ? RunEnd::early
                                                    : RunEnd::finished;
  if (options.end) options.end(training, end, folder.path());
  return end;
}

}  // namespace carousel
