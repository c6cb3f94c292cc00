#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "engine/text/gpt2_words.h"

namespace carousel {

/// The unit of text that is one token.
enum class TokenKind : std::uint8_t { byte, character, word, line, sentencepiece, byte_bpe };

/// What data.tokens calls a kind that it can be.
const char* name(TokenKind kind);
/// Whether there may be text without an id.
constexpr bool may_be_unknown(TokenKind kind) {
  return kind != TokenKind::byte && kind != TokenKind::byte_bpe;
}

/// How newlines are treated.
enum class Newline : std::uint8_t {
  text,  ///< like any other byte, character or white space between words
  eos,   ///< each becomes the token <eos>, and so does the end of an unterminated last line: the
         ///< convention of WikiText-2
  line   ///< each line that has tokens becomes <bos> tokens <eos>; other lines are left out
};

/// How text is cut into tokens:
///   byte       every byte, whatever it is
///   character  every Unicode code point of UTF-8 text
///   word       every longest run without white space (Unicode's property White_Space), exactly as
///              it stands in the text: "end." and "(end" are words of their own, and punctuation is
///              a token only where white space surrounds it. The white space itself is no token. A
///              word that reads <unk> is the unknown token; one that reads <eos> under
///              Newline::eos is the end of a line. Under Newline::line the text may not contain the
///              words <bos> and <eos>.
///   line       every line as a whole, without its newline; empty lines are left out. For labels:
///              these ids follow the order of code points, not the counts.
///   sentencepiece  what the vocabulary's Subwords make of a line, which is passed on as a whole; under
///              Newline::text a newline is a token of its own. A line of white space has none, and a
///              text may not contain U+0000.
///   byte_bpe   what the vocabulary's BytePairs make of each of Gpt2Words, of any bytes. A newline is
///              among them under Newline::text, otherwise it ends a word.
/// The text is not changed otherwise: case is kept, Unicode is not normalised, and a carriage
/// return before a newline is a byte, a character or white space.
struct TokenRules {
  TokenKind kind = TokenKind::character;
  Newline newline = Newline::text;
  bool unknown = true;  ///< tokens without an id become <unk>, or are an error; of may_be_unknown()
  bool operator==(const TokenRules&) const = default;
};

inline constexpr std::string_view kUnknownText = "<unk>";
inline constexpr std::string_view kBeginText = "<bos>";
inline constexpr std::string_view kEndText = "<eos>";

/// A text to read: a file, or characters in memory under a name for errors.
class Text {
 public:
  Text(std::string path) : name_(std::move(path)) {}  // NOLINT: a path is a text
  Text(const char* path) : name_(path) {}             // NOLINT
  static Text in_memory(std::string content, std::string name = "text");

  const std::string& name() const { return name_; }  ///< of a file, its path
  bool in_memory() const { return content_ != nullptr; }
  /// Passes on the whole text in pieces, each with the byte it begins at; of a file, without a byte
  /// order mark at its start. IoError if the file cannot be read, FormatError for an empty text.
  void read(const std::function<void(std::string_view piece, std::int64_t at)>& take) const;

 private:
  std::string name_;
  std::shared_ptr<const std::string> content_;
};

/// Receives tokens in the order of the text.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual bool token(std::string_view text) = 0;  ///< false: it has no id, which is an error
  virtual void begin_line() = 0;                  ///< <bos>
  virtual void end_line() = 0;                    ///< <eos>
};

/// Cuts a text, fed in pieces of any size, into tokens. Its memory is one word or line of
/// at most 64 KiB.
/// Every error is a FormatError that begins "<name>: line <from 1>, byte <of the file, from 0>: ".
class Tokenizer {
 public:
  Tokenizer(const TokenRules& rules, std::string name, TokenSink& sink);

  /// What is fed next begins at this byte of the file, in a line of its own: bytes are left out.
  void skip_to(std::int64_t byte) { line_start_ = byte_ = byte; }
  void feed(std::string_view text);
  /// Takes one of the special tokens where its name stands in the text.
  void special(std::string_view name);
  /// Ends the last word and leaves the last line open: for a prompt, whose text will continue.
  void pause();
  /// Ends the last word and the last line: for the end of a text.
  void finish();

  std::int64_t characters() const { return characters_; }  ///< code points so far, white space too

 private:
  void accept(std::string_view sequence, char32_t code);
  void accept_in_word(std::string_view sequence, char32_t code);
  /// Takes the bytes at the start of a text that are not UTF-8.
  void accept_bytes(std::string_view bytes);
  void deliver(std::string_view token);
  void close_word();
  void close_line();
  [[noreturn]] void fail(const std::string& what) const;

  TokenRules rules_;
  std::string name_;
  TokenSink& sink_;
  std::string cut_;    ///< start of a sequence whose rest is in the next piece
  std::string word_;   ///< the word or line being read
  Gpt2Words words_;    ///< of byte_bpe, instead
  bool open_ = false;  ///< <bos> was delivered and its <eos> was not
  std::int64_t byte_ = 0, line_ = 1, characters_ = 0;
  std::int64_t line_start_ = 0, token_start_ = 0;  ///< byte
};

/// Feeds a whole text and finishes it. Returns the tokenizer's count of characters. Errors as
/// Text::read().
std::int64_t tokenize(const Text& text, const TokenRules& rules, TokenSink& sink);

}  // namespace carousel
