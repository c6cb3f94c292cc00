#include "engine/text/prompt.h"

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

#include "engine/text/tokens.h"

namespace carousel {
namespace {

/// A special token as it is written in a text, and where.
struct Special {
  std::size_t at = std::string_view::npos;
  std::string_view name;
};

bool is_blank(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

/// The first special token from `from` on that the vocabulary has.
Special first_special(const Vocabulary& vocabulary, std::string_view text, std::size_t from) {
  const std::pair<std::int32_t, std::string_view> specials[] = {
      {vocabulary.unknown(), kUnknownText},
      {vocabulary.begin(), kBeginText},
      {vocabulary.end(), kEndText}};
  const bool whole_words = vocabulary.rules().kind == TokenKind::word;
  const auto stands_at = [&](std::string_view name, std::size_t at) {
    const std::size_t end = at + name.size();
    return !whole_words ||
           ((at == 0 || is_blank(text[at - 1])) && (end == text.size() || is_blank(text[end])));
  };
  Special first;
  for (const auto& [id, name] : specials) {
    if (id < 0) continue;
    std::size_t at = text.find(name, from);
    while (at != std::string_view::npos && !stands_at(name, at)) at = text.find(name, at + 1);
    if (at < first.at) first = {at, name};
  }
  return first;
}

}  // namespace

Encoded encode_prompt(const Vocabulary& vocabulary, std::string_view text,
                      const std::string& name) {
  MemoryTokenWriter writer(vocabulary);
  Tokenizer tokenizer(vocabulary.rules(), name, writer);
  std::int64_t written_unknown = 0;
  std::size_t from = 0;
  for (Special special = first_special(vocabulary, text, from); !special.name.empty();
       special = first_special(vocabulary, text, from)) {
    tokenizer.feed(text.substr(from, special.at - from));
    tokenizer.special(special.name);
    if (special.name == kUnknownText) ++written_unknown;
    from = special.at + special.name.size();
  }
  tokenizer.feed(text.substr(from));
  tokenizer.pause();
  Encoded encoded = writer.encoded();
  encoded.unknown -= written_unknown;
  return encoded;
}

std::int32_t first_token(const Vocabulary& vocabulary) {
  if (vocabulary.begin() >= 0) return vocabulary.begin();
  const std::int32_t document_end = vocabulary.id(kEndOfText);
  if (vocabulary.byte_pairs() != nullptr && document_end >= 0) return document_end;
  const std::int32_t line_end = line_end_token(vocabulary);
  return line_end >= 0 ? line_end : static_cast<std::int32_t>(vocabulary.size() - 1);
}

std::int32_t line_end_token(const Vocabulary& vocabulary) {
  return vocabulary.end() >= 0 ? vocabulary.end() : vocabulary.id("\n");
}

}  // namespace carousel
