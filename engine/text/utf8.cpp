#include "engine/text/utf8.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <charconv>
#include <cstdint>

#include "kernels/common/check.h"

namespace carousel {
namespace {

// What a first byte determines: how many bytes follow it, and the range of the second byte.
struct Lead {
  int following;  // −1: not a first byte
  std::uint8_t low, high;
};

constexpr Lead lead(std::uint8_t byte) {
  if (byte < 0x80) return {0, 0, 0};
  if (byte < 0xC2) return {-1, 0, 0};  // a continuation byte, or the start of an overlong form
  if (byte < 0xE0) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};  // below: overlong
  if (byte == 0xED) return {2, 0x80, 0x9F};  // above: surrogates
  if (byte < 0xF0) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};  // below: overlong
  if (byte < 0xF4) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};  // above: past U+10FFFF
  return {-1, 0, 0};
}

bool prints(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

// The code point or byte after \x or \u{: hexadecimal digits up to `end`.
std::uint32_t hexadecimal(std::string_view digits, std::string_view whole) {
  std::uint32_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value, 16);
  if (digits.empty() || stop != end || error != std::errc()) {
    throw FormatError(fmt::format("bad escape in '{}'", whole));
  }
  return value;
}

// One escape sequence at the start of `rest`, which begins with a backslash; removed from it.
std::string take_escape(std::string_view& rest, std::string_view whole) {
  const char letter = rest.size() < 2 ? '\0' : rest[1];
  std::size_t length = 2;
  std::string result;
  switch (letter) {
    case 'n':
      result = "\n";
      break;
    case 't':
      result = "\t";
      break;
    case 'r':
      result = "\r";
      break;
    case 's':
      result = " ";
      break;
    case '\\':
      result = "\\";
      break;
    case 'x':
      length = 4;
      result = static_cast<char>(hexadecimal(rest.substr(2, 2), whole));
      break;
    case 'u': {
      const std::size_t brace = rest.find('}');
      if (brace == std::string_view::npos || rest[2] != '{') {
        throw FormatError(fmt::format("bad escape in '{}'", whole));
      }
      length = brace + 1;
      result = utf8(static_cast<char32_t>(hexadecimal(rest.substr(3, brace - 3), whole)));
      break;
    }
    default:
      throw FormatError(fmt::format("bad escape in '{}'", whole));
  }
  rest.remove_prefix(std::min(length, rest.size()));
  return result;
}

}  // namespace

Utf8Sequence utf8_sequence(std::string_view text) {
  const auto first = static_cast<std::uint8_t>(text[0]);
  auto [following, low, high] = lead(first);
  if (following == 0) return {Utf8Sequence::Status::whole, 1, first};
  if (following < 0) return {Utf8Sequence::Status::bad, 1, 0};
  std::uint32_t code = first & (0x3FU >> following);
  std::size_t bytes = 1;
  for (; following > 0; --following, ++bytes) {
    if (bytes == text.size()) return {Utf8Sequence::Status::cut, bytes, 0};
    const auto next = static_cast<std::uint8_t>(text[bytes]);
    if (next < low || next > high) return {Utf8Sequence::Status::bad, bytes, 0};
    code = code << 6 | (next & 0x3FU);
    low = 0x80, high = 0xBF;
  }
  return {Utf8Sequence::Status::whole, bytes, code};
}

std::string utf8(char32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  return {reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count)};
}

std::string lower_case(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const Utf8Sequence s = utf8_sequence(text);
    if (s.status == Utf8Sequence::Status::whole) {
      result +=
          utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(s.code))));
    } else {
      result += text.substr(0, s.bytes);
    }
    text.remove_prefix(s.bytes);
  }
  return result;
}

char32_t upper_case(char32_t code) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code)));
}

bool is_white_space(char32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Sequence s = utf8_sequence(text);
    if (s.status != Utf8Sequence::Status::whole) return false;
    text.remove_prefix(s.bytes);
  }
  return true;
}

std::string escaped(std::string_view token) {
  std::string result;
  while (!token.empty()) {
    const Utf8Sequence s = utf8_sequence(token);
    const char c = token.front();
    if (s.status != Utf8Sequence::Status::whole) {
      for (std::size_t i = 0; i < s.bytes; ++i) {
        result += fmt::format("\\x{:02X}", static_cast<std::uint8_t>(token[i]));
      }
    } else if (const auto at = std::string_view("\n\t\r \\").find(c);
               at != std::string_view::npos) {
      result += '\\';
      result += "ntrs\\"[at];
    } else if (!prints(s.code)) {
      result += fmt::format("\\u{{{:X}}}", static_cast<std::uint32_t>(s.code));
    } else {
      result += token.substr(0, s.bytes);
    }
    token.remove_prefix(s.bytes);
  }
  return result;
}

std::string unescaped(std::string_view text) {
  std::string result;
  for (std::string_view rest = text; !rest.empty();) {
    if (rest.front() == '\\') {
      result += take_escape(rest, text);
    } else {
      result += rest.front();
      rest.remove_prefix(1);
    }
  }
  // Only one spelling is accepted, so that reading a file and writing it again gives the same
  // bytes.
  if (escaped(result) != text) {
    throw FormatError(fmt::format("'{}' should be written '{}'", text, escaped(result)));
  }
  return result;
}

std::string xml_text(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '&') {
      result += "&amp;";
    } else if (c == '<') {
      result += "&lt;";
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace carousel
