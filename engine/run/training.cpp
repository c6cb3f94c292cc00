#include "engine/run/training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

#include "engine/batches/micro_batches.h"
#include "engine/run/run_folder.h"
#include "engine/run/run_metrics.h"
#include "engine/run/trained_model.h"
#include "engine/text/utf8.h"
#include "engine/training/parameter_groups.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// The config that a run was trained with. ConfigError if its model is of another kind.
std::unique_ptr<RunConfig> former_config(const RunConfig& config, const std::string& text,
                                         const std::string& run) {
  const ModelEntry& entry = *config.entry;
  const std::string kind = Config::parse(text, run, {}).text("model", "kind", "");
  if (kind != entry.kind && (entry.formerly == nullptr || kind != entry.formerly)) {
    throw ConfigError(fmt::format("--resume: model.kind is {} now, and {} was trained with {}",
                                  entry.kind, run, kind));
  }
  return std::make_unique<RunConfig>(text, run, std::span(&entry, 1));
}

/// Tells what a resumed run has changed, and where the learning rate does not go on as it would have.
void tell_changes(const std::vector<std::string>& changes, const RunConfig& before,
                  const RunConfig& now, const TrainingRun& run, TrainObserver& observer) {
  if (changes.empty()) return;
  observer.on_notice(fmt::format("resumed with {}", fmt::join(changes, "; ")));
  const std::int64_t next = run.step + 1;
  const double was = learning_rate(before.schedule, std::min(next, before.train.steps)),
               is = learning_rate(now.schedule, next);
  if (was == is || next > now.train.steps) return;
  observer.on_notice(fmt::format("the learning rate goes on at {:.3g}, not {:.3g}",
                                 is * run.plateau.factor, was * run.plateau.factor));
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
  std::optional<SavedCheckpoint> saved;
  std::unique_ptr<RunConfig> former;
  std::vector<std::string> changes;
  if (const auto last = checkpoints.last()) {  // none: killed before the first save, begins again
    saved.emplace(*last);
    former = former_config(config, metadata_text(saved->model(), "carousel.config"), path.string());
    changes = config.expect_resumes(*former, path.string());
  }
  std::optional<SafetensorsFile> beginning;  // opened before the text is read: that may take long
  if (!saved && !config.weights.empty()) beginning.emplace(config.weights);

  const Corpus corpus = config.data->open((path / "cache").string());
  if (saved) {
    try {
      Vocabularies::read(saved->metadata(), path.string())
          .expect_same_tokens(corpus.vocabularies, path.string());
    } catch (const FormatError& error) {
      throw ConfigError(fmt::format("--resume: the text has changed: {}", error.what()));
    }
  }
  Training training(config, corpus, device);
  TrainingRun& run = training.run;
  if (saved) restore(run, *saved);
  const bool tokens_agree =
      !beginning || load_weights(*beginning, corpus.vocabularies, *training.model);
  write_file_atomically(path / "config.toml", config.toml());

  RunMetrics observer(path / "metrics.jsonl", saved ? run.step : -1, options.observer);
  if (saved) run.seconds = observer.seconds();
  if (options.begin) options.begin(training);
  for (const std::string& key : config.without_effect()) {
    if (!former) observer.on_notice(key);
  }
  if (!tokens_agree) {
    observer.on_notice(fmt::format(
        "warning: {} does not say which tokens it was trained on; whether they are in the order of "
        "data.text's is unchecked",
        config.weights.string()));
  }
  if (former) tell_changes(changes, *former, config, run, observer);
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
