// Every config that ships says nothing a model does not know, and its model can be made.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "engine/run/run_config.h"
#include "models/registry.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> configs() {
  std::vector<fs::path> files;
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path();
  for (const auto& file : fs::recursive_directory_iterator(program / CAROUSEL_CONFIG_FOLDER)) {
    if (file.path().extension() == ".toml") files.push_back(file.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Configs, AreUnderstood) {
  const std::vector<fs::path> files = configs();
  EXPECT_GE(files.size(), 12U);
  for (const fs::path& file : files) {
    EXPECT_NO_THROW({
      const RunConfig config(file, model_registry());
      EXPECT_EQ(config.without_effect(), std::vector<std::string>{}) << file;
    }) << file;
  }
}

}  // namespace
}  // namespace carousel
