#include "engine/text/gpt2_words.h"

#include <utf8proc.h>

#include <utility>

#include "engine/text/utf8.h"

namespace carousel {

Gpt2Words::Kind Gpt2Words::kind_of(char32_t code) {
  if (code == '\'') return Kind::apostrophe;
  if (code == kNoCharacter) return Kind::others;
  if (is_white_space(code)) return Kind::space;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return Kind::letters;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return Kind::numbers;
    default:
      return Kind::others;
  }
}

void Gpt2Words::pass_on(const Take& take) {
  kind_ = Kind::none;
  if (!word_.empty()) take(word_);
  word_.clear();
}

void Gpt2Words::begin(std::string_view sequence, Kind kind) {
  kind_ = kind;
  last_ = word_.size();
  word_ += sequence;
}

void Gpt2Words::end_space(std::string_view sequence, Kind kind, const Take& take) {
  const std::string last = word_.substr(last_);
  word_.resize(last_);
  pass_on(take);
  word_ = last;
  if (last != " ") pass_on(take);
  // Behind a blank an apostrophe is a character like others.
  begin(sequence, kind == Kind::apostrophe && !word_.empty() ? Kind::others : kind);
}

void Gpt2Words::after_apostrophe(std::string_view sequence, Kind kind, const Take& take) {
  const std::string whole = word_ + std::string(sequence);
  for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (!ending.starts_with(whole)) continue;
    word_ = whole;
    if (whole == ending) pass_on(take);
    return;
  }
  const std::string letter = word_.substr(1);  // of 're, 've, 'll that is none
  if (letter.empty() && (kind == Kind::others || kind == Kind::apostrophe)) {
    begin(sequence, Kind::others);
    return;
  }
  word_.resize(1);
  pass_on(take);
  if (!letter.empty()) begin(letter, Kind::letters);
  read(sequence, kind, take);
}

void Gpt2Words::read(std::string_view sequence, Kind kind, const Take& take) {
  if (kind_ == Kind::apostrophe) {
    after_apostrophe(sequence, kind, take);
  } else if (kind_ == Kind::space && kind != Kind::space) {
    end_space(sequence, kind, take);
  } else {
    const bool goes_on =
        kind == kind_ || (kind_ == Kind::others && kind == Kind::apostrophe) || kind_ == Kind::none;
    if (!goes_on) pass_on(take);
    begin(sequence, kind_ == Kind::others && kind == Kind::apostrophe ? Kind::others : kind);
  }
}

void Gpt2Words::read_held_back(const Take& take) {
  // kEndOfText begins nowhere within itself, so that all of this is text.
  const std::string_view held = kEndOfText.substr(0, std::exchange(marked_, 0));
  for (std::size_t i = 0; i < held.size(); ++i) {
    read(held.substr(i, 1), kind_of(static_cast<unsigned char>(held[i])), take);
  }
}

void Gpt2Words::next(std::string_view sequence, char32_t code, const Take& take) {
  if (code == static_cast<unsigned char>(kEndOfText[marked_])) {
    if (++marked_ < kEndOfText.size()) return;
    marked_ = 0;
    finish(take);
    take(kEndOfText);
    return;
  }
  read_held_back(take);
  if (code == static_cast<unsigned char>(kEndOfText[0])) {
    marked_ = 1;
  } else {
    read(sequence, kind_of(code), take);
  }
}

void Gpt2Words::finish(const Take& take) {
  read_held_back(take);
  if (kind_ == Kind::apostrophe && word_.size() > 1) {
    const std::string letter = word_.substr(1);
    word_.resize(1);
    pass_on(take);
    word_ = letter;
  }
  pass_on(take);
}

}  // namespace carousel
