#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/text/vocabulary.h"

namespace carousel {

/// The ids of a text that is to go on, as Vocabulary::encode(), except that <unk>, <bos> and <eos>
/// stand for these tokens where the vocabulary has them; words only as whole words. `unknown` counts
/// tokens without an id, not a written <unk>.
Encoded encode_prompt(const Vocabulary& vocabulary, std::string_view text, const std::string& name);

/// The token a text begins with when nothing else is said: <bos>, byte_bpe's kEndOfText, <eos>, a newline, or the last
/// token there is.
std::int32_t first_token(const Vocabulary& vocabulary);

/// The token that ends a line of a stream: a newline or <eos>; −1 if none does.
std::int32_t line_end_token(const Vocabulary& vocabulary);

}  // namespace carousel
