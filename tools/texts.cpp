#include "tools/texts.h"

#include <fmt/format.h>

#include "kernels/common/check.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

bool is_lines(const RunConfig& config) { return config.data.unit == DataConfig::Unit::line; }

StreamOptions stream_options(const RunConfig& config, const Vocabulary& vocabulary) {
  const DataConfig& data = config.data;
  StreamOptions stream{.batch = config.train.batch,
                       .window = config.train.window,
                       .seed = static_cast<std::uint64_t>(config.train.seed),
                       .device_bytes = static_cast<std::size_t>(data.device_bytes)};
  if (!data.document_end.empty()) {
    stream.document_end = vocabulary.id(data.document_end);
    if (stream.document_end < 0) {
      throw ConfigError(fmt::format("data.document_end is '{}', which is no token of {}",
                                    data.document_end, data.text.string()));
    }
  }
  return stream;
}

LineOptions line_options(const RunConfig& config, const Vocabulary& vocabulary, bool shuffle) {
  return {.batch = config.train.batch,
          .begin = vocabulary.begin(),
          .shuffle = shuffle,
          .seed = static_cast<std::uint64_t>(config.train.seed)};
}

}  // namespace

Corpus corpus_of(const RunConfig& config, const fs::path& cache) {
  const DataConfig& data = config.data;
  TokenRules rules = data.rules;
  if (is_lines(config)) rules.newline = Newline::line;
  CorpusFiles files{.train = {data.text.string()},
                    .validation = {},
                    .test = {},
                    .train_ratio = data.train_fraction,
                    .cache = cache.string()};
  if (!data.validation.empty()) files.validation = {data.validation.string()};
  return open_corpus(files, counted_vocabulary(files.train, rules, data.limits, files.cache));
}

std::unique_ptr<BatchSource> training_batches(const RunConfig& config, const Corpus& corpus,
                                              const Device& device) {
  const Vocabulary& v = corpus.vocabulary;
  return is_lines(config) ? line_batches(device, corpus.train, line_options(config, v, true))
                          : stream_batches(device, corpus.train, stream_options(config, v));
}

std::unique_ptr<BatchSource> validation_batches(const RunConfig& config, const Corpus& corpus,
                                                const Device& device) {
  if (corpus.validation.count <= 1) return nullptr;
  const Vocabulary& v = corpus.vocabulary;
  return is_lines(config)
             ? line_batches(device, corpus.validation, line_options(config, v, false))
             : evaluation_batches(device, corpus.validation, stream_options(config, v));
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
