#include "engine/text/line_encoder.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/text/vocabulary_counter.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;

Vocabulary vocabulary(TokenKind kind, Newline newline) {
  VocabularyCounter counter({.kind = kind, .newline = newline});
  counter.add(Text::in_memory("a a a b b c\n"));
  return counter.vocabulary({});
}

std::vector<Ids> encoded(const Vocabulary& v, LineEncoder::End end,
                         const std::vector<std::string>& lines) {
  LineEncoder encoder(v, "text", end);
  std::vector<Ids> ids;
  for (const std::string& line : lines) ids.push_back(encoder.next(line));
  return ids;
}

TEST(LineEncoder, ALineEndsAsInAFileOrStaysOpen) {
  struct Case {
    const char* name;
    TokenKind kind;
    Newline newline;
    std::vector<Ids> closed, open;
  };
  constexpr auto kWord = TokenKind::word, kLetter = TokenKind::character;
  // Words: <unk> 0, then specials, then a, b, c. Letters: <unk> 0, <bos> 1, <eos> 2, blank, a, …
  const Case cases[] = {{"words, a newline is white space",
                         kWord,
                         Newline::text,
                         {{2, 1}, {}, {0}},
                         {{2, 1}, {}, {0}}},
                        {"words, a newline is <eos>",
                         kWord,
                         Newline::eos,
                         {{3, 2, 1}, {1}, {0, 1}},
                         {{3, 2}, {}, {0}}},
                        {"words in lines",
                         kWord,
                         Newline::line,
                         {{1, 4, 3, 2}, {}, {1, 0, 2}},
                         {{1, 4, 3}, {}, {1, 0}}},
                        {"letters in lines",
                         kLetter,
                         Newline::line,
                         {{1, 5, 3, 4, 2}, {}, {1, 0, 2}},
                         {{1, 5, 3, 4}, {}, {1, 0}}}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Vocabulary v = vocabulary(c.kind, c.newline);
    const std::vector<std::string> lines{"b a\n", "\n", "z"};
    EXPECT_EQ(encoded(v, LineEncoder::End::closed, lines), c.closed);
    EXPECT_EQ(encoded(v, LineEncoder::End::open, lines), c.open);
    Ids together;
    for (const Ids& ids : c.closed) together.insert(together.end(), ids.begin(), ids.end());
    MemoryTokenWriter writer(v);
    tokenize(Text::in_memory("b a\n\nz"), v.rules(), writer);
    EXPECT_EQ(writer.encoded().ids, together) << "as the text in one piece";
  }
}

TEST(LineEncoder, ALetterNewlineBelongsToItsLine) {
  const Vocabulary v = vocabulary(TokenKind::character, Newline::text);
  const std::int32_t newline = v.id("\n"), a = v.id("a");
  using enum LineEncoder::End;
  EXPECT_EQ(encoded(v, closed, {"a\n", "\n", "a"}),
            (std::vector<Ids>{{a, newline}, {newline}, {a}}));
  EXPECT_EQ(encoded(v, open, {"a\n", "\n", "a"}), (std::vector<Ids>{{a}, {}, {a}}));
}

TEST(LineEncoder, AnErrorTellsTheLineOfTheText) {
  const Vocabulary v = vocabulary(TokenKind::character, Newline::text);
  LineEncoder encoder(v, "standard input", LineEncoder::End::open);
  encoder.next("ab\n");
  EXPECT_EQ(test::error_text<FormatError>([&] { encoder.next("c\xFF\n"); }),
            "standard input: line 2, byte 4: not UTF-8; tokens of kind byte take any bytes");
}

}  // namespace
}  // namespace carousel
