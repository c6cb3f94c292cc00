#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/hash.h"
#include "engine/text/vocabulary.h"

namespace carousel {

/// Which of the counted tokens get an id.
struct VocabularyLimits {
  std::int64_t minimum_count = 1;
  std::int64_t maximum_size = 0;     ///< all ids, special ones too; 0: no limit
  SubwordOptions subwords{};         ///< of SentencePiece, for which the two above mean nothing
  std::filesystem::path byte_bpe{};  ///< the folder of a byte-level BPE model, likewise
};

/// What tells limits from others, a model's bytes too, for the name of what is kept.
std::string identity(const VocabularyLimits& limits);

/// Counts the tokens of texts, or those given to it one by one, and makes a vocabulary of them.
/// Memory grows with the number of distinct tokens; for SentencePiece it is that of the text.
class VocabularyCounter final : public TokenSink {
 public:
  explicit VocabularyCounter(const TokenRules& rules);
  void add(const Text& text) { tokenize(text, rules_, *this); }
  /// ConfigError for limits that bytes cannot have or that leave no room for a token; FormatError
  /// if there was no token at all.
  Vocabulary vocabulary(const VocabularyLimits& limits) const;

  bool token(std::string_view text) override;
  void begin_line() override { ++lines_; }
  void end_line() override { ++ends_; }

 private:
  Vocabulary subword_vocabulary(const SubwordOptions& options) const;
  Vocabulary byte_pair_vocabulary(const std::filesystem::path& folder) const;
  void count_line_ends(Vocabulary& vocabulary) const;
  TokenRules rules_;
  std::vector<std::string> texts_;  ///< the lines, for SentencePiece
  std::array<std::int64_t, 256> byte_counts_{};
  TokenMap<std::int64_t> counts_;
  std::int64_t lines_ = 0, ends_ = 0;
};

}  // namespace carousel
