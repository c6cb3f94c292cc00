#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/tokens.h"
#include "engine/text/vocabulary_counter.h"

namespace carousel {

/// Texts, and the folder that keeps what is made of them. A name there is made of the files' paths,
/// sizes and times of change, and of `how` the thing is made. What is made of a text in memory, or
/// without a folder, is kept in memory alone.
class TextCache {
 public:
  /// ConfigError if there is no text or one is not a regular file; IoError if one is not there.
  TextCache(std::vector<Text> texts, std::string folder);

  const std::vector<Text>& texts() const { return texts_; }
  std::string name() const;  ///< of the texts, for errors

  Vocabulary vocabulary(const std::string& how, const std::function<Vocabulary()>& make) const;
  /// Null if they are not kept.
  std::shared_ptr<const TokenStore> tokens(const std::string& how,
                                           const Vocabulary& vocabulary) const;
  std::unique_ptr<TokenWriter> writer(const std::string& how, const Vocabulary& vocabulary) const;
  /// What is to be told of tokens, so that it is told again when they are kept. To keep before them.
  void keep_notice(const std::string& how, const std::string& notice) const;
  std::string notice(const std::string& how) const;  ///< empty if none is kept

  /// FormatError if a file is not as it was at the start. To call when all was read and before
  /// anything is kept.
  void expect_unchanged() const;

 private:
  bool keeps() const;
  std::string kept(const std::string& how, const char* extension) const;
  std::vector<Text> texts_;
  std::filesystem::path folder_;
  std::string identity_;
};

/// Counts the tokens of texts and numbers them. Reads every text once, in pieces.
///
/// Errors   FormatError with file, line and byte for an empty text, text that is not UTF-8 (unless
///          tokens are bytes), and a text without tokens; for a file that changes meanwhile.
///          IoError for what cannot be read; ConfigError for no text, a file that is not regular,
///          and limits that make no sense.
Vocabulary counted_vocabulary(const std::vector<Text>& texts, const TokenRules& rules,
                              const VocabularyLimits& limits, const std::string& cache);

/// The tokens of texts, one after the other, in constant memory if they are kept in `cache`. Errors
/// as above, and FormatError with file, line and byte for a token without an id when the vocabulary
/// has no <unk>.
TokenRange tokenised(const std::vector<Text>& texts, const Vocabulary& vocabulary,
                     const std::string& cache);

}  // namespace carousel
