#include "engine/run/run_folder.h"

#include <fmt/format.h>

#include "kernels/common/check.h"

namespace carousel {
namespace fs = std::filesystem;

RunFolder::RunFolder(const fs::path& path, bool resume) : path_(path), created_(!resume) {
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
    throw ConfigError(fmt::format(
        "{} exists already: give --resume to continue that run, or another folder", path.string()));
  }
  make_folders(path);
  lock_.emplace(path);
  for (const fs::path& place : {path, path / "cache"}) remove_leftovers(place);
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (created_ && !fs::exists(path_ / "checkpoints" / "last", ignored)) {
    fs::remove_all(path_, ignored);
  }
}

}  // namespace carousel
