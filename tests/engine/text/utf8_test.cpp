#include "engine/text/utf8.h"

#include <gtest/gtest.h>

#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;

TEST(Utf8, SequencesAreJudgedAsTheUnicodeTableSays) {
  using Status = Utf8Sequence::Status;
  const auto status = [](std::string_view text) { return utf8_sequence(text).status; };
  EXPECT_EQ(utf8_sequence("\xF0\x9F\x8E\xA0 horse").code, U'\U0001F3A0');
  EXPECT_EQ(status("\xC2"), Status::cut);
  EXPECT_EQ(status("\xF0\x9F\x8E"), Status::cut);
  EXPECT_EQ(status("\x80"), Status::bad);              // a continuation byte
  EXPECT_EQ(status("\xC1\xBF"), Status::bad);          // overlong
  EXPECT_EQ(status("\xE0\x9F\xBF"), Status::bad);      // overlong
  EXPECT_EQ(status("\xED\xA0\x80"), Status::bad);      // a surrogate
  EXPECT_EQ(status("\xF0\x8F\xBF\xBF"), Status::bad);  // overlong
  EXPECT_EQ(status("\xF4\x90\x80\x80"), Status::bad);  // past U+10FFFF
  EXPECT_EQ(status("\xF5"), Status::bad);
  EXPECT_EQ(utf8_sequence("\xE2\x82z").bytes, 2U);  // what one replacement character stands for
}

TEST(Utf8, EveryCodePointSurvivesAndNothingElseIsWhole) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    const Utf8Sequence s = utf8_sequence(utf8(code));
    ASSERT_EQ(s.status == Utf8Sequence::Status::whole, !surrogate)
        << static_cast<std::uint32_t>(code);
    if (!surrogate) {
      ASSERT_EQ(s.code, code);
    }
  }
}

TEST(Utf8, EscapesAreReadableAndHaveOneSpelling) {
  EXPECT_EQ(escaped("a\n\t\r \\"), "a\\n\\t\\r\\s\\\\");
  EXPECT_EQ(escaped("é\u2028\x01"), "é\\u{2028}\\u{1}");
  EXPECT_EQ(escaped("\xFF"), "\\xFF");
  EXPECT_EQ(unescaped("\\u{2028}\\xFF"), "\u2028\xFF");
  for (const char* bad :
       {"\\", "\\q", "\\x", "\\xF", "\\xGG", "\\u", "\\u{", "\\u{}", "\\u{110000}", "\\u{D800}",
        "\\u{61}", "\\xff", " ", "\n", "\\u{FFFFFFFFF}"}) {
    EXPECT_NE(error_text<FormatError>([&] { unescaped(bad); }), "") << bad;
  }
}

}  // namespace
}  // namespace carousel
