#include "engine/data/samplers.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/batches/pair_plan.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

LineOptions line_options(const Corpus& corpus, const SamplerOptions& options) {
  const std::pair<const char*, bool> for_streams[] = {
      {"window_deviation", options.window_deviation != 0},
      {"window_halving", options.window_halving != 0},
      {"reset_probability", options.reset_probability != 0},
      {"random_start", options.random_start}};
  for (const auto& [key, set] : for_streams) {
    if (set) throw ConfigError(fmt::format("train.{} is for a stream, and the data is lines", key));
  }
  return {.batch = options.batch,
          .tokens = options.tokens,
          .begin = corpus.vocabularies["token"].begin(),
          .shuffle = options.training,
          .seed = options.seed,
          .share = options.share};
}

/// ConfigError for batches by their tokens, which are of pairs.
void expect_rows(const SamplerOptions& options) {
  if (options.tokens == 0) return;
  throw ConfigError(fmt::format("train.tokens_per_batch is {}, which is for data.kind = \"pairs\"",
                                options.tokens));
}

}  // namespace

std::unique_ptr<BatchSource> language_batches(const Corpus& corpus, const Split& split,
                                              const SamplerOptions& options) {
  expect_rows(options);
  const TokenRange& tokens = split["token"];
  if (corpus.lines) {
    LineOptions lines = line_options(corpus, options);
    lines.answer_after = corpus.answer_after;
    return line_batches(options.device, tokens, lines);
  }
  StreamOptions stream{
      .batch = options.batch,
      .window = options.window,
      .document_end = corpus.document_end,
      .window_deviation = options.window_deviation,
      .window_halving = options.window_halving,
      .random_start = options.random_start,
      .reset_probability = options.reset_probability,
      .seed = options.seed,
      .device_bytes = corpus.device_bytes / static_cast<std::size_t>(options.sources),
      .share = options.share};
  if (options.training) return stream_batches(options.device, tokens, stream);
  if (options.rows < 1) {
    throw ConfigError(fmt::format("data: rows is {}, expected at least 1", options.rows));
  }
  stream.batch = options.rows;
  stream.window *= std::max<std::int64_t>(options.batch / options.rows, 1);
  if (const auto [steps, stride] = options.windows; steps > 0) {
    stream.overlap = steps - stride;
    const std::int64_t more = std::max(stream.window, steps) - stream.overlap;
    stream.window = stream.overlap + more / stride * stride;
  }
  return evaluation_batches(options.device, tokens, stream);
}

std::unique_ptr<BatchSource> example_batches(const Corpus& corpus, const Split& split,
                                             const SamplerOptions& options) {
  expect_rows(options);
  const TokenRange& tokens = split["token"];
  if (!corpus.lines) {
    throw ConfigError(fmt::format(
        "{}: the data is one stream, expected examples: data.unit = \"line\" or data.kind = "
        "\"labelled\"",
        tokens.name));
  }
  std::optional<TokenRange> labels;
  if (options.training || split.find("label") != nullptr) labels = split["label"];
  return labelled_batches(options.device, tokens, labels, line_options(corpus, options));
}

std::unique_ptr<BatchSource> pair_batches(const Corpus& corpus, const Split& split,
                                          const SamplerOptions& options) {
  PairedLines pairs{.sources = split["source"]};
  if (options.training || split.find("token") != nullptr) pairs.targets = split["token"];
  return paired_batches(options.device, std::move(pairs), line_options(corpus, options));
}

}  // namespace carousel
