#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/data/data_kinds.h"
#include "engine/data/text_cache.h"

namespace carousel {

/// data.kind = "text": the column "token" of a text.
class TextData final : public DataConfig {
 public:
  enum class Unit : std::uint8_t { stream, line };
  enum class LineEnds : std::uint8_t { automatic, text, eos, line };

  std::filesystem::path text, validation;
  double train_fraction = 0.9;             ///< of the tokens, without a text to validate on
  TokenOptions tokens;                     ///< but for the rule of newlines
  LineEnds newline = LineEnds::automatic;  ///< Newline; automatic: eos for words, otherwise text
  Unit unit = Unit::stream;
  std::string document_end;  ///< the token after which a new document begins; empty: none
  std::string answer_after;  ///< of a line, only tokens after this one are targets; empty: all
  std::int64_t device_bytes = std::int64_t{1} << 30;

  void describe(OptionSection& section) override;
  void complete() override;
  bool lines() const override { return unit == Unit::line; }
  Corpus open(const std::string& cache, const Vocabularies& given = {}) const override;
  Corpus evaluation(const Text& text, const Vocabularies& vocabularies,
                    const std::string& cache) const override;
  void mark(Corpus& corpus, const Vocabularies& vocabularies,
            const std::string& name) const override;

  /// Of texts instead of the files in the options; several are read one after the other. Without
  /// texts to validate on, the first ⌊train_fraction · N⌋ of the N training tokens are for training
  /// and the rest is for validation; but the cut moves on to the next place where neither a UTF-8
  /// character (of byte tokens) nor a line (under Newline::line) is divided. A single token is not
  /// validated on.
  ///
  /// Errors   as tokenised(); ConfigError for a fraction outside (0, 1] and for a document_end or an
  ///          answer_after that is no token; for an answer_after without lines.
  Corpus corpus(const std::vector<Text>& train, const std::vector<Text>& validation = {},
                const std::string& cache = {}, const Vocabularies& given = {}) const;

 private:
  TokenRules rules() const;
  Corpus without_tokens(Vocabularies vocabularies, const std::string& name) const;
};

}  // namespace carousel
