#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/text/tokens.h"
#include "models/hmm/tables.h"

namespace carousel {

/// The characters of the keys that touch the key of this one in the three rows of letters of a US
/// keyboard, with the same shift. Nothing for what is not there, as digits and the blank.
std::string neighbouring_keys(char character);

/// Which tokens follow one another in a text: [V, V] from, to.
std::vector<std::int64_t> count_bigrams(const TokenRange& tokens, std::int64_t vocabulary);

/// The tables of a typist. State i is that token i was meant: token i is typed then, or with a
/// probability of `typo_probability` one of the keys beside it, each as likely, which is <unk> if the
/// vocabulary does not have it; a token without keys beside it is typed as it is.
struct Typist {
  const std::vector<std::string>& texts;  ///< of the tokens
  double typo_probability = 0;
  double smoothing = 0;       ///< added to every count
  std::int32_t never = -1;    ///< a token that is neither meant nor typed; −1: none
  std::int32_t unknown = -1;  ///< <unk>; −1: none, and keys without a token are not hit

  /// `starts` [V] counts the tokens that sequences begin with, `bigrams` [V, V] what follows.
  HmmTables tables(std::span<const std::int64_t> starts,
                   std::span<const std::int64_t> bigrams) const;

 private:
  std::vector<std::int64_t> slips_for(std::int64_t token) const;
};

}  // namespace carousel
