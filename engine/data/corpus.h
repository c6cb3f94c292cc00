#pragma once

#include <string>
#include <vector>

#include "engine/text/token_file.h"
#include "engine/text/vocabulary_counter.h"

namespace carousel {

/// Which texts a run reads. Several files of one part are read one after the other.
struct CorpusFiles {
  std::vector<std::string> train{};
  std::vector<std::string> validation{};  ///< none: what train_ratio leaves of `train`
  std::vector<std::string> test{};        ///< may be none
  double train_ratio = 0.9;               ///< in (0, 1]; only without validation files
  std::string cache{};  ///< folder for what was made of the texts; made if need be, never emptied
};

/// A text as tokens, in parts. A part that was not asked for is empty.
struct Corpus {
  Vocabulary vocabulary;
  TokenRange train, validation, test;
};

/// Counts the tokens of texts and numbers them. The result is kept in `cache`, under a name made of
/// the files' paths, sizes and times of change and of the rules, and read from there the next time.
/// Reads every file once, in pieces.
///
/// Errors   FormatError with file, line and byte for an empty file, text that is not UTF-8 (unless
///          tokens are bytes), and a text without tokens; for a file that changes meanwhile.
///          IoError for what cannot be read; ConfigError for no file, one that is not regular,
///          and limits that make no sense.
Vocabulary counted_vocabulary(const std::vector<std::string>& texts, const TokenRules& rules,
                              const VocabularyLimits& limits, const std::string& cache);

/// The tokens of texts in a file in `cache`: made if it is not there, in constant memory, under a
/// name as above and of the vocabulary. Errors as above, and FormatError with file, line and byte
/// for a token without an id when the vocabulary has no <unk>.
TokenRange tokenised(const std::vector<std::string>& texts, const Vocabulary& vocabulary,
                     const std::string& cache);

/// The texts as tokens. Without validation files the first ⌊train_ratio · N⌋ of the N training
/// tokens are for training and the rest is for validation; but the cut moves on to the next place
/// where neither a UTF-8 character (of byte tokens) nor a line (under Newline::line) is divided.
/// Errors as tokenised(); ConfigError for a ratio outside (0, 1].
Corpus open_corpus(const CorpusFiles& files, const Vocabulary& vocabulary);

}  // namespace carousel
