#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>

#include "engine/text/hash.h"
#include "engine/text/tokenizer.h"

namespace carousel {

/// Which pairs of words are phrases.
struct PhraseOptions {
  std::int64_t discount = 5;  ///< δ, so that pairs of rare words are none
  double threshold = 100;     ///< that a phrase's score exceeds
};

/// The phrases of a text: words a and b, one after the other in a line, that stand together more
/// often than their own counts explain,
///
///     score(a b) = (count(a b) − δ) · N / (count(a) · count(b)) > threshold
///
/// where N is the number of words. A word is what TokenRules says of TokenKind::word; <unk> and <eos>
/// are in no phrase. Memory grows with the different words, and the different pairs of words that
/// occur more than δ times.
///
/// Source   Mikolov, Sutskever, Chen, Corrado & Dean 2013, arXiv:1310.4546, section 4 and equation
///          6, times N as in the program word2phrase that its authors published.
class Phrases {
 public:
  /// Reads the text twice. ConfigError for options below 0; errors as tokenize().
  explicit Phrases(const Text& text, const PhraseOptions& options = {});

  std::int64_t count() const { return static_cast<std::int64_t>(phrases_.size()); }
  std::int64_t words() const { return words_; }  ///< N
  /// Of a phrase; of any other pair 0.
  double score(std::string_view a, std::string_view b) const;

  /// Passes on the text with phrases as words, "a_b": line by line, words with a blank between them.
  /// From left to right, so that of a phrase's two words none is in another; a second reading joins
  /// phrases to longer ones. Returns how many were joined. Errors as tokenize().
  using Write = std::function<void(std::string_view line)>;
  std::int64_t join(const Text& text, const Write& write) const;

 private:
  struct Word {
    std::int64_t count = 0;
    std::int32_t id = -1;  ///< of a word that can be in a phrase
  };
  class WordCounter;
  class PairCounter;
  class Joiner;
  std::int32_t id(std::string_view word) const;

  TokenMap<Word> vocabulary_;
  std::int64_t words_ = 0;
  std::unordered_map<std::uint64_t, double> phrases_;  ///< scores by the ids of both words
};

}  // namespace carousel
