#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <optional>

#include "kernels/common/check.h"
#include "tools/commands.h"
#include "tools/session.h"
#include "tools/texts.h"
#include "tools/train_log.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

std::atomic<bool> stop_asked{false};
extern "C" void ask_to_stop(int) { stop_asked = true; }

/// The first Ctrl-C (or a polite kill) ends training after the step; the second ends the process.
void watch_interrupts() {
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

/// The run's folder, ours alone while this lives, without what killed processes left in it. A new
/// one that fails before its first checkpoint is taken away again, so that the corrected command can
/// be given as it was.
class RunFolder {
 public:
  RunFolder(const fs::path& path, bool resume) : path_(path), created_(!resume) {
    const bool there = fs::exists(path),
               empty = there && fs::is_directory(path) && fs::is_empty(path);
    if (resume && !there) {
      throw ConfigError(fmt::format("--resume: there is no run {}", path.string()));
    }
    // A run that was killed before its first save has no checkpoint yet, but a lock.
    if (resume && !empty && !fs::exists(path / ".lock") && !fs::exists(path / "checkpoints")) {
      throw ConfigError(fmt::format("--resume: {} is not the folder of a run", path.string()));
    }
    if (!resume && there && !empty) {
      throw ConfigError(
          fmt::format("{} exists already: give --resume to continue that run, or another folder",
                      path.string()));
    }
    make_folders(path);
    lock_.emplace(path);
    for (const fs::path& place : {path, path / "cache"}) remove_leftovers(place);
  }
  ~RunFolder() {
    std::error_code ignored;
    if (created_ && !fs::exists(path_ / "checkpoints" / "last", ignored)) {
      fs::remove_all(path_, ignored);
    }
  }
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

 private:
  fs::path path_;
  bool created_;
  std::optional<FolderLock> lock_;
};

/// What may change when a run continues: how long and how it is watched, where it runs, and the file
/// it began with, whose place the checkpoint's weights have taken.
bool may_change(const std::string& name) {
  static const char* const names[] = {
      "train.steps",        "train.report_every",  "train.evaluate_every", "train.save_every",
      "train.sample_every", "train.sample_tokens", "train.patience",       "train.keep",
      "model.weights",      "run.device",          "run.threads",          "run.graph"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

/// ConfigError if the config asks for another run than the one that is there.
void expect_same_run(const RunConfig& config, const SavedCheckpoint& saved,
                     const fs::path& folder) {
  const Config now = Config::parse(config.toml(), "config", folder);
  const Config then = Config::parse(saved.metadata().at("carousel.config"), "checkpoint", folder);
  for (const Setting& setting : now.settings()) {
    const Setting* before = then.find(setting.section, setting.key);
    if (before != nullptr && before->text != setting.text && !may_change(setting.name()) &&
        !config.may_change(setting.name())) {
      throw ConfigError(fmt::format("--resume: {} is {} now, and {} was trained with {}",
                                    setting.name(), setting.text, folder.string(), before->text));
    }
  }
}

/// How steps run, where there is a choice.
const char* steps_text(const Device& device, const MachineConfig& machine) {
  if (is_cpu(device)) return "";
  return machine.graph ? ", steps as CUDA graphs" : ", eager steps";
}

void tell_the_end(ProgressBar& progress, TrainEnd end, const TrainingRun& run,
                  const TrainArguments& arguments) {
  progress.clear();
  if (end == TrainEnd::interrupted) {
    progress.line(
        fmt::format("stopped after step {} and saved; to go on: carousel train {} --out "
                    "{} --resume",
                    run.step, arguments.config, arguments.out));
    return;
  }
  progress.line(
      fmt::format("{} after {} steps, {} tokens, {} of training{}",
                  end == TrainEnd::early ? "stopped early" : "done", run.step,
                  count_text(static_cast<double>(run.tokens)), duration_text(run.seconds),
                  std::isfinite(run.best_loss)
                      ? fmt::format("; best validation loss {:.4f} nats per token", run.best_loss)
                      : ""));
}

}  // namespace

int train_command(const TrainArguments& arguments, const CommonArguments& common) {
  const RunConfig config(fs::path(arguments.config), common);
  const Device device = open_device(config.machine);
  const fs::path out(arguments.out);
  const RunFolder folder(out, arguments.resume);
  CheckpointFolder checkpoints(out, static_cast<int>(config.train.keep));
  checkpoints.remove_leftovers();
  std::unique_ptr<SavedCheckpoint> saved;
  if (const auto last = checkpoints.last()) {  // none: killed before the first save, begins again
    saved = std::make_unique<SavedCheckpoint>(*last);
    expect_same_run(config, *saved, out);
  }

  std::unique_ptr<SafetensorsFile> beginning;  // opened before the text is read: that may take long
  if (!saved && !config.weights.empty()) {
    beginning = std::make_unique<SafetensorsFile>(config.weights);
  }
  const Corpus corpus = config.data->open((out / "cache").string());
  const auto training = training_batches(config, corpus, device);
  const auto validation = validation_batches(config, corpus, device);
  const Vocabulary& vocabulary = corpus.vocabularies["token"];
  const Metadata metadata = run_metadata(config, corpus.vocabularies);
  if (saved && saved->metadata().at("carousel.vocabulary") != vocabulary.text()) {
    throw ConfigError(fmt::format("--resume: {} has changed: its vocabulary is not that of run {}",
                                  corpus.train["token"].name, arguments.out));
  }
  const std::unique_ptr<Model> model = config.model->make(
      vocabulary.size(), device, compute_type(config.machine.precision), config.train.seed);
  Parameters& parameters = model->parameters();
  Optimizer optimizer(config.optimizer, parameters);
  TrainingRun run{.model = *model,
                  .optimizer = optimizer,
                  .data = *training,
                  .state = model->initial_state(config.train.batch)};
  if (saved) restore(run, *saved);
  if (beginning) load_weights(*beginning, corpus.vocabularies, *model);
  write_file_atomically(out / "config.toml", config.toml());

  TrainLog log(out, saved ? run.step : -1, config.train, vocabulary, device);
  if (saved) run.seconds = seconds_so_far(out / "metrics.jsonl");
  log.progress().line(fmt::format(
      "{}: {} weights, vocabulary {}, {} tokens to train on, {} to validate; {}{}", config.kind,
      count_text(static_cast<double>(parameters.element_count())), vocabulary.size(),
      count_text(static_cast<double>(corpus.train["token"].count)),
      count_text(
          static_cast<double>(corpus.validation.empty() ? 0 : corpus.validation["token"].count)),
      device_text(device), steps_text(device, config.machine)));
  if (beginning) {
    log.progress().line(fmt::format("weights: begin as in {}", beginning->path().string()));
  }
  if (run.step >= config.train.steps) {
    log.progress().line(fmt::format("{} has done its {} steps; a larger train.steps goes on",
                                    arguments.out, run.step));
    return 0;
  }
  watch_interrupts();
  Trainer trainer(run, {.config = config.train,
                        .schedule = config.schedule,
                        .validation = validation.get(),
                        .metadata = metadata,
                        .checkpoints = checkpoints,
                        .observer = log,
                        .tf32 = config.machine.precision == Precision::tf32,
                        .graph = config.machine.graph});
  if (common.explain) log.explain(config.machine);
  const TrainEnd end = trainer.train(stop_asked);
  tell_the_end(log.progress(), end, run, arguments);
  return end == TrainEnd::interrupted ? 130 : 0;
}

}  // namespace carousel
