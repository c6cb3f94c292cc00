#include "engine/run/run_folder.h"

#include <fmt/format.h>

#include "engine/training/checkpoint.h"
#include "kernels/common/check.h"

namespace carousel {
namespace fs = std::filesystem;

void expect_run(const fs::path& path) {
  if (!fs::exists(path)) {
    throw ConfigError(fmt::format("--resume: there is no run {}", path.string()));
  }
  if (fs::exists(path / kModelFile) && fs::exists(path / kStateFile)) {
    throw ConfigError(
        fmt::format("--resume: {} is a checkpoint, expected the folder of its run", path.string()));
  }
  const fs::path weights = fs::is_regular_file(path) ? path : path / kModelFile;
  if (!fs::exists(weights)) return;
  throw ConfigError(
      fmt::format("--resume: {} has weights alone, and a run cannot go on from them; a new one "
                  "begins with them by --set model.weights={}",
                  path.string(), weights.string()));
}

RunFolder::RunFolder(const fs::path& path, bool resume) : path_(path), created_(!resume) {
  const bool there = fs::exists(path),
             empty = there && fs::is_directory(path) && fs::is_empty(path);
  if (resume) expect_run(path);
  // A run that was killed before its first save has no checkpoint yet, but a lock.
  const bool is_run = fs::exists(path / ".lock") || fs::exists(path / "checkpoints");
  if (resume && !empty && !is_run) {
    throw ConfigError(fmt::format("--resume: {} is not the folder of a run", path.string()));
  }
  if (there && !empty && !is_run) {
    throw ConfigError(
        fmt::format("{} exists already and is no run; give another folder", path.string()));
  }
  if (!resume && there && !empty) {
    throw ConfigError(
        fmt::format("{} exists already: `carousel resume` or --resume continues that run; or give "
                    "another folder",
                    path.string()));
  }
  make_folders(path);
  lock_.emplace(path);
  for (const fs::path& place : {path, path / "cache"}) remove_leftovers(place);
}

std::string RunFolder::find() {
  const fs::path before = path_;
  const std::optional<fs::path> now = lock_->where(path_);
  if (now == before) return {};
  if (now) {
    path_ = *now;
    return fmt::format("{} is {} now, where the run goes on", before.string(), path_.string());
  }
  if (fs::exists(path_)) path_ += ".recovered";
  make_folders(path_);
  lock_.emplace(path_);
  return fmt::format("{} was removed; the run goes on in {}", before.string(),
                     path_ == before ? "a new one" : path_.string());
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (created_ && !fs::exists(path_ / "checkpoints" / "last", ignored)) {
    fs::remove_all(path_, ignored);
  }
}

}  // namespace carousel
