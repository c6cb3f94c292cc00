#include "engine/text/vocabulary.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "engine/text/utf8.h"
#include "engine/text/vocabulary_counter.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"
#include "tests/support/property.h"

namespace carousel {
namespace {

using test::error_text;
using test::TemporaryFolder;
using Ids = std::vector<std::int32_t>;

constexpr TokenRules kBytes{TokenKind::byte, Newline::text, false};
constexpr TokenRules kCharacters{TokenKind::character, Newline::text, true};
constexpr TokenRules kWords{TokenKind::word, Newline::text, true};
constexpr TokenRules kWikiText{TokenKind::word, Newline::eos, true};
constexpr TokenRules kNames{TokenKind::character, Newline::line, true};

Vocabulary vocabulary_of(std::string_view text, const TokenRules& rules,
                         const VocabularyLimits& limits = {}) {
  VocabularyCounter counter(rules);
  counter.add(Text::in_memory(std::string(text)));
  return counter.vocabulary(limits);
}

std::vector<std::string> tokens_of(const Vocabulary& vocabulary) {
  std::vector<std::string> tokens;
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) tokens.push_back(vocabulary.token(id));
  return tokens;
}

TEST(Vocabulary, CharactersAreNumberedByFallingCountThenCodePoint) {
  const Vocabulary v = vocabulary_of("bébé aaa\n", kCharacters);
  EXPECT_EQ(tokens_of(v), (std::vector<std::string>{"<unk>", "a", "b", "é", "\n", " "}));
  EXPECT_EQ(v.count(1), 3);
  const Encoded e = v.encode("éz b");
  EXPECT_EQ(e.ids, (Ids{3, 0, 5, 2}));
  EXPECT_EQ(e.unknown, 1);
  EXPECT_EQ(v.decode(e.ids), "é<unk> b");
}

TEST(Vocabulary, BytesAreTheirOwnNumbers) {
  const Vocabulary v = vocabulary_of(std::string{'\xFF', '\0', 'z'}, kBytes);
  EXPECT_EQ(v.size(), 256);
  EXPECT_EQ(v.unknown(), -1);
  EXPECT_EQ(v.count('z'), 1);
  EXPECT_EQ(v.encode("\xFF\x80z").ids, (Ids{255, 128, 'z'}));
  const Vocabulary lines = vocabulary_of("a\n\nb", {TokenKind::byte, Newline::line, false});
  EXPECT_EQ(lines.size(), 258);
  EXPECT_EQ(lines.encode("a\n\nb").ids, (Ids{256, 'a', 257, 256, 'b'}));
}

TEST(Vocabulary, WordsAreWhatWhiteSpaceLeavesAndKeepTheirPunctuation) {
  const Vocabulary v = vocabulary_of(" the end.\r\n(the\u00A0end)\tthe\u3000", kWords);
  EXPECT_EQ(tokens_of(v), (std::vector<std::string>{"<unk>", "the", "(the", "end)", "end."}));
  EXPECT_EQ(v.decode(v.encode("  the  end.\n").ids), "the end.");
}

TEST(Vocabulary, WikiTextNewlinesBecomeEndTokensAndUnkIsTheUnknown) {
  const std::string text = " \n = Title = \n \n a <unk> <unk> ,";
  VocabularyCounter counter(kWikiText);
  counter.add(Text::in_memory(std::string(text)));
  const Vocabulary v = counter.vocabulary({});
  EXPECT_EQ(tokens_of(v), (std::vector<std::string>{"<unk>", "<eos>", "=", ",", "Title", "a"}));
  EXPECT_EQ(v.count(v.unknown()), 2);
  EXPECT_EQ(v.count(v.end()), 4);  // three newlines and the unterminated last line
  EXPECT_EQ(v.encode("= Title =\n a").ids, (Ids{2, 4, 2, 1, 5}));  // a prompt's line stays open
  EXPECT_EQ(v.decode(Ids{2, 4, 2, 1, 1, 5}), "= Title =\n\na");
}

TEST(Vocabulary, LinesBeginAndEndAndBlankOnesAreLeftOut) {
  const Vocabulary v = vocabulary_of("Bob\n\nAnn\n", kNames);
  ASSERT_EQ(v.begin(), 1);
  ASSERT_EQ(v.end(), 2);
  EXPECT_EQ(v.count(v.begin()), 2);
  EXPECT_EQ(v.decode(v.encode("Bob\n\nAnn\n").ids), "Bob\nAnn\n");
  EXPECT_EQ(v.encode("A").ids, (Ids{1, v.id("A")}));
}

TEST(Vocabulary, LimitsCountWhatTheyLeaveOut) {
  const Vocabulary rare = vocabulary_of("a a a b b c d", kWords, {.minimum_count = 2});
  EXPECT_EQ(tokens_of(rare), (std::vector<std::string>{"<unk>", "a", "b"}));
  EXPECT_EQ(rare.count(0), 2);
  const Vocabulary small = vocabulary_of("a a a b b c d", kWords, {.maximum_size = 4});
  EXPECT_EQ(tokens_of(small), (std::vector<std::string>{"<unk>", "a", "b", "c"}));
  EXPECT_EQ(small.count(0), 1);
  EXPECT_THROW(vocabulary_of("a", kWords, {.maximum_size = 1}), ConfigError);
  EXPECT_THROW(vocabulary_of("a", kBytes, {.minimum_count = 2}), ConfigError);
}

TEST(Vocabulary, ErrorsNameFileLineAndByte) {
  const TemporaryFolder folder;
  const auto count = [&](const std::string& path, const TokenRules& rules) {
    return error_text<FormatError>([&] {
      VocabularyCounter counter(rules);
      counter.add(path);
      counter.vocabulary({});
    });
  };
  const std::string empty = folder.write("empty", "");
  EXPECT_EQ(count(empty, kBytes), empty + ": line 1, byte 0: the file is empty");
  const std::string bad = folder.write("bad", "\xEF\xBB\xBFok\n\u00E9\xFFz");
  EXPECT_EQ(count(bad, kCharacters),
            bad + ": line 2, byte 8: not UTF-8; tokens of kind byte take any bytes");
  const std::string cut = folder.write("cut", "a\n\xF0\x9F\x8E");
  EXPECT_EQ(count(cut, kWords), cut + ": line 2, byte 2: the text ends inside a UTF-8 sequence");
  EXPECT_EQ(count(folder.write("blank", " \n "), kWords), "vocabulary: the text has no tokens");
  const std::string reserved = folder.write("reserved", "a\nb <eos>\n");
  EXPECT_EQ(count(reserved, {TokenKind::word, Newline::line, true}),
            reserved +
                ": line 2, byte 4: the word <eos> is reserved for the ends of lines, and the text "
                "contains it");
  EXPECT_NE(count(folder.write("long", std::string(70000, 'x')), kWords), "");

  const Vocabulary closed = vocabulary_of("ab\n", {TokenKind::character, Newline::text, false});
  EXPECT_EQ(error_text<FormatError>([&] { closed.encode("ab\na\u2028", "prompt"); }),
            "prompt: line 2, byte 4: the character '\\u{2028}' is not in the vocabulary, which has "
            "no <unk>");
  EXPECT_THROW(closed.decode(Ids{99}), FormatError);
  EXPECT_THROW(closed.decode(Ids{-1}), FormatError);
  EXPECT_THROW(count(folder.path("absent"), kBytes), IoError);
}

TEST(Vocabulary, FileIsReadableAndReadsBackExactly) {
  const TemporaryFolder folder;
  const Vocabulary v = vocabulary_of("a a\tb\\\n", kCharacters);
  EXPECT_EQ(v.text(),
            "carousel vocabulary 1 char newline=text unknown=yes size=7\n"
            "<unk>\t0\na\t2\n\\t\t1\n\\n\t1\n\\s\t1\n\\\\\t1\nb\t1\n");
  v.write(folder.path("v"));
  const Vocabulary back = Vocabulary::read(folder.path("v"));
  EXPECT_EQ(back.text(), v.text());
  EXPECT_EQ(back.fingerprint(), v.fingerprint());
  EXPECT_EQ(back.encode("b\\\t a").ids, v.encode("b\\\t a").ids);
}

TEST(Vocabulary, FileErrorsNameTheLine) {
  const std::string header = "carousel vocabulary 1 char newline=eos unknown=yes size=3\n";
  const auto error = [&](const std::string& text) {
    return error_text<FormatError>([&] { Vocabulary::parse(text, "v.txt"); });
  };
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\na\t1\n"), "");
  EXPECT_EQ(error(""), "v.txt: line 1: the file ends before the last token");
  EXPECT_EQ(error("a\t1\n"), "v.txt: line 1: not a Carousel vocabulary");
  EXPECT_EQ(error("carousel vocabulary 7 char\n"), "v.txt: line 1: version '7', expected '1'");
  EXPECT_NE(error("carousel vocabulary 1 chars newline=eos unknown=yes size=3\n"), "");
  EXPECT_NE(error("carousel vocabulary 1 char newline=eos unknown=yes size=1\n<unk>\t0\n"), "");
  EXPECT_EQ(error(header + "<unk>\t0\nx\t1\na\t1\n"),
            "v.txt: line 3: 'x', expected '<eos>' for this kind");
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\nab\t1\n"),
            "v.txt: line 4: the token is more than a character");
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\na 1\n"),
            "v.txt: line 4: 'a 1' is not a token, a tab and a count");
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\na\t-1\n"),
            "v.txt: line 4: 'a\t-1' is not a token, a tab and a count");
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\n\\q\t1\n"), "v.txt: line 4: bad escape in '\\q'");
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\n"),
            "v.txt: line 4: the file ends before the last token");
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\na\t1"),
            "v.txt: line 4: the line has no end; the file was cut short");
  EXPECT_EQ(error(header + "<unk>\t0\n<eos>\t1\na\t1\nb\t1\n"),
            "v.txt: line 4: there is more text after the 3 tokens of the header");
  EXPECT_EQ(error("carousel vocabulary 1 word newline=text unknown=no size=2\na\t1\na\t1\n"),
            "v.txt: line 3: 'a' is there twice");
}

TEST(TextDecoder, EmitsBytesOnlyAsWholeUtf8) {
  const Vocabulary v = vocabulary_of("x", kBytes);
  TextDecoder decoder(v);
  EXPECT_EQ(decoder.next(0xF0), "");
  EXPECT_EQ(decoder.next(0x9F), "");
  EXPECT_EQ(decoder.next(0x8E), "");
  EXPECT_EQ(decoder.next(0xA0), "\U0001F3A0");
  EXPECT_EQ(decoder.next(0xE2), "");
  EXPECT_EQ(decoder.next('z'), "\uFFFDz");  // a sequence that never came to its end
  EXPECT_EQ(decoder.next(0x80), "\uFFFD");
  EXPECT_EQ(decoder.next(0xC3), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

// Text of all lengths of sequences, of white space and of things that look like escapes.
rc::Gen<std::string> any_text() {
  const auto code = rc::gen::weightedOneOf<std::uint32_t>(
      {{6, rc::gen::inRange<std::uint32_t>('a', 'd')},
       {2, rc::gen::element<std::uint32_t>(' ', '\n', '\t', '\\', '\r', 0, 0x7F, 0xA0, 0x2028,
                                           0xFEFF)},
       {2, rc::gen::inRange<std::uint32_t>(0x80, 0xD800)},
       {1, rc::gen::inRange<std::uint32_t>(0xE000, 0x110000)}});
  return rc::gen::map(rc::gen::container<std::vector<std::uint32_t>>(code),
                      [](const std::vector<std::uint32_t>& codes) {
                        std::string text;
                        for (const std::uint32_t c : codes) text += utf8(c);
                        return text;
                      });
}

RC_GTEST_PROP(VocabularyProperties, CharactersRoundTrip, ()) {
  const std::string text = *any_text();
  RC_PRE(!text.empty());
  const Vocabulary v = vocabulary_of(text, kCharacters);
  const Encoded e = v.encode(text);
  RC_ASSERT(e.unknown == 0);
  RC_ASSERT(v.decode(e.ids) == text);
  std::string streamed;
  TextDecoder decoder(v);
  for (const std::int32_t id : e.ids) streamed += decoder.next(id);
  RC_ASSERT(streamed + decoder.finish() == text);
}

RC_GTEST_PROP(VocabularyProperties, AnyBytesRoundTrip, (const std::string& bytes)) {
  const Vocabulary v = vocabulary_of("x", kBytes);
  RC_ASSERT(v.decode(v.encode(bytes).ids) == bytes);
}

RC_GTEST_PROP(VocabularyProperties, StreamedBytesOfValidTextAreThatText, ()) {
  const std::string text = *any_text();
  const Vocabulary v = vocabulary_of("x", kBytes);
  TextDecoder decoder(v);
  std::string streamed;
  for (const std::int32_t id : v.encode(text).ids) {
    const std::string piece = decoder.next(id);
    if (!piece.empty()) {  // always one whole character
      RC_ASSERT(utf8_sequence(piece).bytes == piece.size());
    }
    streamed += piece;
  }
  RC_ASSERT(streamed + decoder.finish() == text);
}

RC_GTEST_PROP(VocabularyProperties, DecodingWordsAndEncodingAgainChangesNothing, ()) {
  const std::string text = *any_text() + "\nend";
  const Vocabulary v = vocabulary_of(text, kWikiText);
  const Ids ids = v.encode(text).ids;
  RC_ASSERT(v.encode(v.decode(ids)).ids == ids);
}

RC_GTEST_PROP(VocabularyProperties, TextFormReadsBackExactly, ()) {
  const std::string text = *any_text() + "x";
  for (const TokenRules& rules : {kBytes, kCharacters, kWords, kWikiText, kNames}) {
    const Vocabulary v = vocabulary_of(text, rules);
    RC_ASSERT(Vocabulary::parse(v.text()).text() == v.text());
    RC_ASSERT(tokens_of(Vocabulary::parse(v.text())) == tokens_of(v));
  }
}

RC_GTEST_PROP(VocabularyProperties, HowTheTextIsCutIntoPiecesDoesNotMatter,
              (const std::vector<std::uint8_t>& cuts)) {
  const std::string text = *any_text();
  struct Trace final : TokenSink {
    std::string log;
    bool token(std::string_view t) override { return log.append(t).append("|"), true; }
    void begin_line() override { log += "<"; }
    void end_line() override { log += ">"; }
  };
  for (const TokenRules& rules : {kBytes, kCharacters, kWikiText, kNames}) {
    Trace whole, pieces;
    Tokenizer one(rules, "text", whole), many(rules, "text", pieces);
    one.feed(text);
    one.finish();
    std::string_view rest = text;
    for (const std::uint8_t cut : cuts) {
      const std::size_t length = std::min<std::size_t>(cut % 8, rest.size());
      many.feed(rest.substr(0, length));
      rest.remove_prefix(length);
    }
    many.feed(rest);
    many.finish();
    RC_ASSERT(pieces.log == whole.log);
    RC_ASSERT(many.characters() == one.characters());
  }
}

}  // namespace
}  // namespace carousel
