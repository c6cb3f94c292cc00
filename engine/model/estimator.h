#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/data/corpus.h"
#include "engine/files/safetensors.h"

namespace carousel {

/// What an estimator is fitted to, and how it tells of it.
struct Fit {
  const Corpus& corpus;
  std::filesystem::path scratch;  ///< a folder for temporary files
  const std::atomic<bool>& stop;  ///< set at any time: end soon
  /// How far a phase is.
  std::function<void(std::string_view phase, std::int64_t done, std::int64_t all)> progress;
  /// An iteration is over, of an estimator that takes several: its number, from 1, and the mean loss
  /// on the training data before it.
  std::function<void(std::int64_t iteration, double loss)> iterated;
  /// Iterations that load()'s tables have behind them, of a fit that goes on.
  std::int64_t taken = 0;
};

/// What a model without gradients can besides: it is fitted to a corpus, on the CPU, instead of
/// being trained by an optimiser. As a Model it has no parameters; its objective and its decoder
/// read fields and states as those of all models do, and write no gradients.
class Estimator {
 public:
  virtual ~Estimator() = default;
  /// Learns the training part of the corpus. False if it was stopped before there was a model. When
  /// `iterated` is called, tables() are those that the iteration left: the run saves them. A fit that
  /// goes on from them ends, to the last bit, as one that was not interrupted.
  virtual bool fit(const Fit& fit) = 0;
  /// Whether the fit is over after so many iterations, of which the last one left the tables.
  virtual bool is_over(std::int64_t iterations) const { return iterations > 0; }
  /// All that was fitted: what a checkpoint keeps instead of weights.
  virtual std::vector<NamedTensor> tables() const = 0;
  /// The inverse of tables(). FormatError for a file that does not have them, or whose values no fit
  /// gives.
  virtual void load(const SafetensorsFile& file) = 0;
  virtual std::string summary() const = 0;  ///< of what was fitted, in a few words
};

}  // namespace carousel
