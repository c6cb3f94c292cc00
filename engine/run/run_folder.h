#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "engine/files/atomic.h"

namespace carousel {

/// ConfigError for what no run goes on in: nothing is there, or weights, or a checkpoint.
void expect_run(const std::filesystem::path& path);

/// A run's folder, locked while this lives and without what killed processes left in it. A new one
/// that fails before its first checkpoint is taken away again, so that the corrected command can be
/// given as it was; not if it was the disk that failed, for then it holds work.
class RunFolder {
 public:
  /// ConfigError for a folder to resume that is not there or is no run's, and for a new one that is
  /// there already.
  RunFolder(const std::filesystem::path& path, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Leaves a new folder there, whatever happens.
  void keep() { created_ = false; }
  /// Finds the folder again if it was renamed, and makes it anew if it was removed: path() is where
  /// it is. Returns what happened, in words, or nothing.
  std::string find();

 private:
  std::filesystem::path path_;
  bool created_;
  std::optional<FolderLock> lock_;
};

}  // namespace carousel
