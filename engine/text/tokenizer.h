#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace carousel {

/// What a token is.
enum class TokenKind : std::uint8_t { byte, character, word };

/// What a newline is.
enum class Newline : std::uint8_t {
  text,  ///< a byte, a character, or white space between words, like any other
  eos,   ///< each becomes the token <eos>, and so does the end of an unterminated last line: the
         ///< convention of WikiText-2
  line   ///< each line that has tokens becomes <bos> tokens <eos>; other lines are left out
};

/// How text is cut into tokens:
///   byte       every byte, whatever it is
///   character  every Unicode code point of UTF-8 text
///   word       every longest run without white space (Unicode's property White_Space), exactly as
///              it stands in the text: "end." and "(end" are words of their own, and only text in
///              which blanks surround punctuation has it as tokens. The white space itself is no
///              token. A word that reads <unk> is the unknown token, one that reads <eos> under
///              Newline::eos is the end of a line; under Newline::line the text may not contain the
///              words <bos> and <eos>.
/// Nothing else is changed: no case, no normalisation, and a carriage return before a newline is a
/// byte, a character or white space.
struct TokenRules {
  TokenKind kind = TokenKind::character;
  Newline newline = Newline::text;
  bool unknown = true;  ///< there is an <unk>, and tokens without an id become it; bytes have none
  bool operator==(const TokenRules&) const = default;
};

inline constexpr std::string_view kUnknownText = "<unk>";
inline constexpr std::string_view kBeginText = "<bos>";
inline constexpr std::string_view kEndText = "<eos>";

/// Takes tokens in the order of the text.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual bool token(std::string_view text) = 0;  ///< false: it is unknown, and that is an error
  virtual void begin_line() = 0;                  ///< <bos>
  virtual void end_line() = 0;                    ///< <eos>
};

/// Cuts a text, fed in pieces of any size, into tokens. Its memory is one word of at most 64 KiB.
/// Every error is a FormatError that begins "<name>: line <from 1>, byte <of the file, from 0>: ".
class Tokenizer {
 public:
  Tokenizer(const TokenRules& rules, std::string name, TokenSink& sink);

  void skip(std::int64_t bytes) { line_start_ = byte_ += bytes; }  ///< counts bytes never fed
  void feed(std::string_view text);
  /// The text may stop here, as a prompt does: ends the last word, leaves the last line open.
  void pause();
  /// The file ends here: ends the last word and the last line.
  void finish();

  std::int64_t characters() const { return characters_; }  ///< code points so far, white space too

 private:
  void accept(std::string_view sequence, char32_t code);
  void deliver(std::string_view token);
  void close_word();
  void close_line();
  [[noreturn]] void fail(const std::string& what) const;

  TokenRules rules_;
  std::string name_;
  TokenSink& sink_;
  std::string cut_;    ///< start of a sequence whose rest is in the next piece
  std::string word_;   ///< the word being read
  bool open_ = false;  ///< <bos> was delivered and its <eos> was not
  std::int64_t byte_ = 0, line_ = 1, characters_ = 0;
  std::int64_t line_start_ = 0, token_start_ = 0;  ///< byte
};

/// Feeds a whole file, without a byte order mark at its start, and finishes it. Returns the
/// tokenizer's count of characters. IoError if it cannot be read, FormatError if it is empty.
std::int64_t tokenize_file(const std::string& path, const TokenRules& rules, TokenSink& sink);

}  // namespace carousel
