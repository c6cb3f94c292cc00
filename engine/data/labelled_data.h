#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/data_kinds.h"

namespace carousel {

/// data.kind = "labelled": texts with a label each, in lines label<TAB>text of a file, or in the
/// files of a folder, of which each has the examples of one label as lines and the label as name,
/// without extension. Columns "token" (Newline::line: an example is a line from <bos> to <eos>) and
/// "label"; labels are numbered in the order of their code points.
///
/// Errors   FormatError with file, line and byte, for a line that is no such example: without a tab,
///          with more than one, without a label or a text, not UTF-8; for a label that training
///          data does not have, for training data with a single label, for an empty file or folder.
class LabelledData final : public DataConfig {
 public:
  std::filesystem::path text, validation;
  double train_fraction = 0.9;  ///< of the examples, without data to validate on
  std::int64_t split_seed = 1;  ///< of the choice of these examples
  TokenOptions tokens;

  void describe(OptionSection& section) override;
  bool lines() const override { return true; }
  Corpus open(const std::string& cache, const Vocabularies& given = {}) const override;
  Corpus evaluation(const Text& text, const Vocabularies& vocabularies,
                    const std::string& cache) const override;
  /// Lines of text without labels.
  Corpus inputs(const Text& text, const Vocabularies& vocabularies,
                const std::string& cache) const override;

  /// Of texts instead of the paths in the options. Without a text to validate on, train_fraction of
  /// the examples are for training, and the rest, chosen at random among the examples of each label,
  /// is for validation; at least one example of each label is for training.
  Corpus corpus(const Text& train, const std::optional<Text>& validation = {},
                const std::string& cache = {}, const Vocabularies& given = {}) const;
};

}  // namespace carousel
