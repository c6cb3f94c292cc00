#include "engine/run/opened_run.h"

#include <fmt/format.h>

#include <sstream>
#include <utility>

#include "engine/run/trained_model.h"
#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

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

/// The same folder.
CheckpointFolder without_leftovers(CheckpointFolder folder) {
  folder.remove_leftovers();
  return folder;
}

/// The same config.
const RunConfig& valid(const RunConfig& config) {
  expect_utf8(config);
  return config;
}

}  // namespace

OpenedRun::OpenedRun(const RunConfig& of, const std::filesystem::path& path, bool resume)
    : config(valid(of)),
      device(open_device(of.machine)),
      folder(path, resume),
      checkpoints(without_leftovers(CheckpointFolder(path, static_cast<int>(of.train.keep)))),
      former(resumed(of, checkpoints, path.string())),
      start(of, former ? &former->saved : nullptr),
      corpus(start.open_corpus((path / "cache").string())) {
  if (former) expect_same_text(former->saved, corpus, path.string());
}

void OpenedRun::write_config() const {
  write_file_atomically(folder.path() / "config.toml", config.toml());
}

void OpenedRun::find_folder(RunMetrics& observer) {
  const std::string what = folder.find();
  if (what.empty()) return;
  checkpoints.move_to(folder.path());
  observer.move_to(metrics_file());
  write_config();
  observer.on_notice(what);
}

}  // namespace carousel
