#pragma once

#include <cstdint>
#include <memory>

#include "engine/batches/batches.h"
#include "engine/data/corpus.h"

namespace carousel {

struct SamplerOptions {
  Device device = Cpu{};
  std::int64_t batch = 32;   ///< rows
  std::int64_t tokens = 0;   ///< of pairs: LineOptions::tokens
  std::int64_t window = 64;  ///< T of truncated BPTT, of a stream
  // Of a stream: StreamOptions.
  double window_deviation = 0, window_halving = 0, reset_probability = 0;
  bool random_start = false;
  std::uint64_t seed = 1;  ///< of shuffling and whatever else is drawn
  /// False: for evaluation. Every example once, in the same order in each epoch.
  bool training = true;
  /// In evaluation, a stream is cut into so many rows, of which each begins without a state. With
  /// one row, each token is predicted from all before it. Windows are as much longer as rows are
  /// fewer than `batch`.
  std::int64_t rows = 1;
  /// Of a model that reads a stream so in evaluation: a batch has whole windows, and overlaps with the
  /// next as they do, so that no token sees less than in one long batch.
  ReadingWindows windows{};
  Share share{};
  std::int64_t sources =
      1;  ///< that this process makes: together they keep a stream's device_bytes
};

/// Batches of one part of a corpus. A model chooses the sampler that gives the fields it reads.
/// ConfigError if the data lacks a column, FormatError if it is too short.
using Sampler = std::unique_ptr<BatchSource> (*)(const Corpus&, const Split&,
                                                 const SamplerOptions&);

/// For models that predict the next token: fields "token" and "target". A stream gives windows
/// (stream_batches(), evaluation_batches()); lines give whole lines (line_batches()).
std::unique_ptr<BatchSource> language_batches(const Corpus& corpus, const Split& split,
                                              const SamplerOptions& options);

/// For models that read an example and give one answer: fields "token" and "label"
/// (labelled_batches()). Evaluated data without labels gives "token" and "number" alone.
std::unique_ptr<BatchSource> example_batches(const Corpus& corpus, const Split& split,
                                             const SamplerOptions& options);

/// For models that write a text for each that they read: fields "source", "token" and "target"
/// (paired_batches()). Evaluated data has "number" too; without targets it has "source" and "number"
/// alone.
std::unique_ptr<BatchSource> pair_batches(const Corpus& corpus, const Split& split,
                                          const SamplerOptions& options);

}  // namespace carousel
