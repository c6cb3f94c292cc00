#include "engine/text/tokenizer.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
constexpr std::size_t kWordBytes = std::size_t{1} << 16;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Tokens are made of lines or words, not of characters.
bool has_words(TokenKind kind) { return kind != TokenKind::byte && kind != TokenKind::character; }

const char* noun(TokenKind kind) {
  if (kind == TokenKind::line || kind == TokenKind::sentencepiece) return "line";
  return has_words(kind) ? "word" : "character";
}

bool is_white_space(std::string_view text) {
  while (!text.empty()) {
    const Utf8Sequence s = utf8_sequence(text);
    if (!carousel::is_white_space(s.code)) return false;
    text.remove_prefix(s.bytes);
  }
  return true;
}

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; }

}  // namespace

const char* name(TokenKind kind) {
  static constexpr const char* kNames[] = {"byte", "char",          "word",
                                           "line", "sentencepiece", "byte_bpe"};
  return kNames[static_cast<int>(kind)];
}

Text Text::in_memory(std::string content, std::string name) {
  Text text(std::move(name));
  text.content_ = std::make_shared<const std::string>(std::move(content));
  return text;
}

void Text::read(const std::function<void(std::string_view, std::int64_t)>& take) const {
  std::int64_t at = 0;
  const auto pass_on = [&](std::string_view piece) {
    const bool mark = !in_memory() && at == 0 && piece.starts_with(kByteOrderMark);
    const std::size_t skipped = mark ? kByteOrderMark.size() : 0;
    take(piece.substr(skipped), at + static_cast<std::int64_t>(skipped));
    at += static_cast<std::int64_t>(piece.size());
  };
  const auto expect_content = [&](bool there, const char* what) {
    if (!there) throw FormatError(fmt::format("{}: line 1, byte 0: the {} is empty", name_, what));
  };
  if (in_memory()) {
    expect_content(!content_->empty(), "text");
    pass_on(*content_);
    return;
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(name_.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) throw_io_error("opening", name_);
  std::vector<char> piece(kPieceBytes);
  for (;;) {
    const std::size_t count = std::fread(piece.data(), 1, piece.size(), file.get());
    if (std::ferror(file.get()) != 0) throw_io_error("reading", name_);
    if (count == 0) break;
    pass_on({piece.data(), count});
  }
  expect_content(at > 0, "file");
}

Tokenizer::Tokenizer(const TokenRules& rules, std::string name, TokenSink& sink)
    : rules_(rules), name_(std::move(name)), sink_(sink) {}

void Tokenizer::fail(const std::string& what) const {
  throw FormatError(fmt::format("{}: line {}, byte {}: {}", name_, line_, token_start_, what));
}

void Tokenizer::deliver(std::string_view token) {
  if (rules_.newline == Newline::line && !open_) {
    open_ = true;
    sink_.begin_line();
  }
  if (!sink_.token(token)) {
    fail(fmt::format("the {} '{}' is not in the vocabulary, which has no <unk>", noun(rules_.kind),
                     escaped(token)));
  }
}

void Tokenizer::close_word() {
  if (rules_.kind == TokenKind::byte_bpe) {
    words_.finish([this](std::string_view word) { deliver(word); });
  }
  if (word_.empty()) return;
  if (rules_.kind == TokenKind::sentencepiece && is_white_space(word_)) {
    word_.clear();
    return;
  }
  if (rules_.newline == Newline::line && (word_ == kBeginText || word_ == kEndText)) {
    fail(fmt::format("the word {} is reserved for the ends of lines, and the text contains it",
                     word_));
  }
  deliver(word_);
  word_.clear();
}

void Tokenizer::close_line() {
  if (rules_.newline == Newline::eos) sink_.end_line();
  if (open_) sink_.end_line();
  open_ = false;
}

void Tokenizer::accept_in_word(std::string_view sequence, char32_t code) {
  const bool in_text = rules_.newline == Newline::text;
  std::size_t held = 0;
  if (rules_.kind == TokenKind::byte_bpe) {
    if (code == '\n' && !in_text) {
      close_word();
      return;
    }
    if (words_.held() == 0) token_start_ = byte_;
    words_.next(sequence, code, [this](std::string_view word) { deliver(word); });
    held = words_.held();
  } else if (rules_.kind == TokenKind::word ? carousel::is_white_space(code) : code == '\n') {
    close_word();
    if (rules_.kind == TokenKind::sentencepiece && in_text) deliver("\n");
  } else {
    if (word_.empty()) token_start_ = byte_;
    word_ += sequence;
    held = word_.size();
  }
  if (held > kWordBytes) {
    fail(fmt::format("a {} of more than {} bytes; is this text?", noun(rules_.kind), kWordBytes));
  }
}

void Tokenizer::accept(std::string_view sequence, char32_t code) {
  const bool newline = code == '\n';
  if (rules_.kind == TokenKind::sentencepiece && code == 0) {
    token_start_ = byte_;
    fail("a character U+0000, expected text");
  }
  if (has_words(rules_.kind)) {
    accept_in_word(sequence, code);
  } else if (!newline || rules_.newline == Newline::text) {
    token_start_ = byte_;
    deliver(sequence);
  }
  byte_ += static_cast<std::int64_t>(sequence.size());
  if (rules_.kind != TokenKind::byte || !continues(sequence.front())) ++characters_;
  if (newline) {
    close_line();
    ++line_;
    line_start_ = byte_;
  }
}

void Tokenizer::accept_bytes(std::string_view bytes) {
  if (rules_.kind != TokenKind::byte_bpe) {
    token_start_ = byte_;
    fail("not UTF-8; tokens of kind byte take any bytes");
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    accept(bytes.substr(i, 1), Gpt2Words::kNoCharacter);
  }
}

void Tokenizer::feed(std::string_view text) {
  while (!cut_.empty() && !text.empty()) {
    cut_ += text.front();
    text.remove_prefix(1);
    const Utf8Sequence s = utf8_sequence(cut_);
    if (s.status == Utf8Sequence::Status::cut) continue;
    const std::string read = std::exchange(cut_, {});
    if (s.status == Utf8Sequence::Status::whole) {
      accept(read, s.code);
    } else {
      accept_bytes(read.substr(0, s.bytes));
      feed(std::string_view(read).substr(s.bytes));  // what interrupted the sequence
    }
  }
  while (!text.empty()) {
    Utf8Sequence s{Utf8Sequence::Status::whole, 1, static_cast<unsigned char>(text.front())};
    if (rules_.kind != TokenKind::byte) s = utf8_sequence(text);
    if (s.status == Utf8Sequence::Status::cut) {
      cut_ = text;
      return;
    }
    if (s.status == Utf8Sequence::Status::whole) {
      accept(text.substr(0, s.bytes), s.code);
    } else {
      accept_bytes(text.substr(0, s.bytes));
    }
    text.remove_prefix(s.bytes);
  }
}

void Tokenizer::special(std::string_view name) {
  pause();
  if (name == kUnknownText) {
    deliver(name);
  } else if (name == kEndText) {
    if (rules_.newline == Newline::line && !open_) sink_.begin_line();
    sink_.end_line();
    open_ = false;
  } else {
    sink_.begin_line();
    open_ = true;
  }
  byte_ += static_cast<std::int64_t>(name.size());
}

void Tokenizer::pause() {
  if (!cut_.empty() && rules_.kind != TokenKind::byte_bpe) {
    token_start_ = byte_;
    fail("the text ends inside a UTF-8 sequence");
  }
  if (!cut_.empty()) accept_bytes(std::exchange(cut_, {}));
  close_word();
}

void Tokenizer::finish() {
  pause();
  if (byte_ > line_start_) close_line();
}

std::int64_t tokenize(const Text& text, const TokenRules& rules, TokenSink& sink) {
  Tokenizer tokenizer(rules, text.name(), sink);
  bool first = true;
  text.read([&](std::string_view piece, std::int64_t at) {
    if (std::exchange(first, false)) tokenizer.skip_to(at);
    tokenizer.feed(piece);
  });
  tokenizer.finish();
  return tokenizer.characters();
}

}  // namespace carousel
