#include "engine/generation/tidy_text.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace carousel {
namespace {

constexpr std::u32string_view kClosing = U".,;:!?\u2026%)]}\u201D\u2019";
constexpr std::u32string_view kOpening = U"([{\u201C\u2018";
constexpr std::u32string_view kEnding = U".!?\u2026";
constexpr std::u32string_view kAfterEnding = U")]}\u201D\u2019\"'";
constexpr std::array<std::string_view, 8> kContractions{"'s", "'re", "'ve", "'ll",
                                                        "'d", "'m",  "'t",  "n't"};

bool is_one_of(std::u32string_view marks, char32_t code) {
  return marks.find(code) != std::u32string_view::npos;
}

std::u32string codes_of(std::string_view word) {
  std::u32string codes;
  while (!word.empty()) {
    const Utf8Sequence s = utf8_sequence(word);
    codes += s.code;
    word.remove_prefix(s.bytes);
  }
  return codes;
}

bool all_of(std::u32string_view codes, std::u32string_view marks) {
  return std::all_of(codes.begin(), codes.end(), [&](char32_t c) { return is_one_of(marks, c); });
}

/// Whether a word continues the one before it, as in it 's.
bool is_contraction(std::string_view word) {
  std::string plain;
  for (const char32_t code : codes_of(lower_case(word))) {
    plain += code == U'\u2019' ? '\'' : code < 0x80 ? static_cast<char>(code) : '?';
  }
  return std::find(kContractions.begin(), kContractions.end(), plain) != kContractions.end();
}

bool is_joint(std::string_view word) { return word == "@-@" || word == "@,@" || word == "@.@"; }

bool ends_sentence(std::u32string_view codes) {
  while (!codes.empty() && is_one_of(kAfterEnding, codes.back())) codes.remove_suffix(1);
  return !codes.empty() && is_one_of(kEnding, codes.back());
}

/// Whether a mark may stand before the first letter of a word.
bool is_mark(char32_t code) {
  return code < 0x80 ? !((code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') ||
                         (code >= '0' && code <= '9'))
                     : is_one_of(kOpening, code) || is_one_of(kClosing, code);
}

}  // namespace

std::string TidyText::take_word() {
  const std::string word = std::exchange(word_, {});
  if (word.empty()) return {};
  std::string blanks = std::exchange(blanks_, {});
  std::u32string codes = codes_of(word);
  const bool joint = is_joint(word);
  const bool joined = joins_ || joint || all_of(codes, kClosing) || is_contraction(word);
  if (joined && blanks == " ") blanks.clear();
  joins_ = joint || all_of(codes, kOpening);
  if (joint) return blanks + word[1];
  const auto letter = std::find_if_not(codes.begin(), codes.end(), is_mark);
  if (sentence_begins_ && letter != codes.end()) {
    if (word != kUnknownText) *letter = upper_case(*letter);
    sentence_begins_ = false;
  }
  if (ends_sentence(codes)) sentence_begins_ = true;
  for (const char32_t code : codes) blanks += utf8(code);
  return blanks;
}

std::string TidyText::next(std::string_view piece) {
  std::string shown;
  for (const char c : piece) {
    if (c != ' ' && c != '\n') {
      word_ += c;
      continue;
    }
    shown += take_word();
    blanks_ += c;
    if (c == '\n') sentence_begins_ = true, joins_ = false;
  }
  return shown;
}

std::string TidyText::finish() {
  const std::string word = take_word();
  return word + std::exchange(blanks_, {});
}

void TidyText::read(std::string_view text) {
  next(text);
  take_word();
}

}  // namespace carousel
