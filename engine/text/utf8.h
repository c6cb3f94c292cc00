#pragma once

#include <string>
#include <string_view>

namespace carousel {

/// The first UTF-8 sequence of a text.
struct Utf8Sequence {
  enum class Status { whole, cut, bad };
  Status status = Status::whole;
  std::size_t bytes = 0;  ///< of the sequence; if cut or bad, of its longest valid start, ≥ 1
  char32_t code = 0;      ///< the code point, if whole
};

/// Reads the sequence that `text`, which is not empty, begins with. `cut`: the text ends inside a
/// sequence that is valid so far. `bad`: an overlong form, a surrogate, a value past U+10FFFF, a
/// stray continuation byte or a sequence that another one interrupts; `bytes` are then what one
/// replacement character stands for.
/// Source   The Unicode Standard 15.0, table 3-7 (well-formed sequences) and section 3.9 (maximal
///          subparts).
Utf8Sequence utf8_sequence(std::string_view text);

bool is_utf8(std::string_view text);

/// The UTF-8 form of a code point.
std::string utf8(char32_t code);

/// The text with each letter that has a lower case in it. What is not UTF-8 stays.
std::string lower_case(std::string_view text);

/// A code point's upper case, or itself if it has none of one code point.
char32_t upper_case(char32_t code);

/// Whether a code point has Unicode's property White_Space, as the separators of words have.
bool is_white_space(char32_t code);

/// `token` in printable form: \n \t \r \\, \s for a blank, \u{2028} for code points that do not
/// print, \xE9 for bytes that are not UTF-8. A token has one such form, without white space.
std::string escaped(std::string_view token);

/// The inverse of escaped(). FormatError, which says what is wrong with it, if `text` is not a form
/// that escaped() gives.
std::string unescaped(std::string_view text);

/// A text as the content of an element of XML or HTML.
std::string xml_text(std::string_view text);

}  // namespace carousel
