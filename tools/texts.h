#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "engine/data/samplers.h"
#include "tools/run_config.h"

namespace carousel {

/// What the config trains on.
std::unique_ptr<BatchSource> training_batches(const RunConfig& config, const Corpus& corpus,
                                              const Device& device);
/// What it is evaluated on; null if there is nothing.
std::unique_ptr<BatchSource> validation_batches(const RunConfig& config, const Corpus& corpus,
                                                const Device& device);

/// A folder for tokens that is gone afterwards: for commands that leave nothing behind.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace carousel
