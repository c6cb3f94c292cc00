#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "engine/data/data_kinds.h"
#include "engine/data/pair_reader.h"

namespace carousel {

/// data.kind = "pairs": texts and what is to be made of them, as translations. Columns "source" and
/// "token", the target (Newline::line: a text is a line from <bos> to <eos>), each with a vocabulary,
/// or both with one that is counted over both. What follows a second tab in a line is not read,
/// which Corpus::notices tell.
///
/// Without pairs to validate on, a part of the pairs is for validation: those whose source text has a
/// hash, with the seed, in the last 1 − train_fraction of all hashes. So all pairs of one source are
/// on the same side, and stay there when others are added.
///
/// Errors   FormatError with file, line and byte, for a line that is no pair: without a tab, without
///          a source or a target, not UTF-8; for two files of different numbers of lines; for an
///          empty file; if no pair is left to train on. ConfigError for one file of two that belong
///          together, and for both forms at once.
class PairsData final : public DataConfig {
 public:
  std::filesystem::path text, source, target;
  std::filesystem::path validation, validation_source, validation_target;
  double train_fraction = 0.9;  ///< of the source texts, without data to validate on
  std::int64_t split_seed = 1;  ///< of the choice of these texts
  bool shared_vocabulary = false;
  TokenOptions tokens;

  void describe(OptionSection& section) override;
  bool lines() const override { return true; }
  Corpus open(const std::string& cache, const Vocabularies& given = {}) const override;
  /// Lines source<TAB>target.
  Corpus evaluation(const Text& text, const Vocabularies& vocabularies,
                    const std::string& cache) const override;
  /// Lines of sources alone. One without tokens is a source of <eos> alone.
  Corpus inputs(const Text& text, const Vocabularies& vocabularies,
                const std::string& cache) const override;

  /// Of texts instead of the paths in the options.
  Corpus corpus(const PairTexts& train, const std::optional<PairTexts>& validation = {},
                const std::string& cache = {}, const Vocabularies& given = {}) const;

 private:
  bool has_validation() const;
};

}  // namespace carousel
