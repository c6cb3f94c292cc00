#include "tools/texts.h"

#include <fmt/format.h>

#include "kernels/common/check.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

SamplerOptions sampler_options(const RunConfig& config, const Device& device) {
  return {.device = device,
          .batch = config.train.batch,
          .window = config.train.window,
          .seed = static_cast<std::uint64_t>(config.train.seed),
          .rows = config.train.batch};
}

}  // namespace

std::unique_ptr<BatchSource> training_batches(const RunConfig& config, const Corpus& corpus,
                                              const Device& device) {
  return language_batches(corpus, corpus.train, sampler_options(config, device));
}

std::unique_ptr<BatchSource> validation_batches(const RunConfig& config, const Corpus& corpus,
                                                const Device& device) {
  if (corpus.validation.empty()) return nullptr;
  SamplerOptions options = sampler_options(config, device);
  options.training = false;
  return language_batches(corpus, corpus.validation, options);
}

ScratchFolder::ScratchFolder() {
  std::string name = (fs::temp_directory_path() / "carousel-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw_io_error("cannot make a folder", name);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace carousel
