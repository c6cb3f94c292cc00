#include "engine/data/text_data.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <vector>

#include "engine/text/token_file.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TemporaryFolder;
using Ids = std::vector<std::int32_t>;

constexpr TokenRules kBytes{TokenKind::byte, Newline::text, false};
constexpr TokenRules kCharacters{TokenKind::character, Newline::text, true};
constexpr TokenRules kWords{TokenKind::word, Newline::text, true};
constexpr TokenRules kWikiText{TokenKind::word, Newline::eos, true};
constexpr TokenRules kNames{TokenKind::character, Newline::line, true};

Ids ids_of(const TokenRange& tokens) {
  Ids ids(static_cast<std::size_t>(tokens.count));
  tokens.read(0, tokens.count, ids.data());
  return ids;
}

std::string text_of(const Corpus& corpus, const Split& split) {
  if (split.empty()) return {};
  return corpus.vocabularies["token"].decode(ids_of(split["token"]));
}

Vocabulary vocabulary_of(std::string_view text, const TokenRules& rules) {
  VocabularyCounter counter(rules);
  counter.add(Text::in_memory(std::string(text)));
  return counter.vocabulary({});
}

class CorpusFolder : public testing::Test {
 protected:
  std::string cache() const { return folder_.path("cache/of/tokens"); }
  Corpus open(const std::vector<Text>& train, const TokenRules& rules, double train_fraction = 1,
              const std::vector<Text>& validation = {}) const {
    TextData data;
    data.tokens.rules = rules;
    using enum TextData::LineEnds;
    data.newline = rules.newline == Newline::text  ? text
                   : rules.newline == Newline::eos ? eos
                                                   : line;
    data.train_fraction = train_fraction;
    return data.corpus(train, validation, cache());
  }
  std::vector<fs::path> cached(const char* extension) const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(cache())) {
      if (entry.path().extension() == extension) found.push_back(entry.path());
    }
    return found;
  }
  TemporaryFolder folder_;
};

TEST_F(CorpusFolder, TokenFilesHoldWhatEncodingGives) {
  const std::string text = "To be, or not to be\n\nthat is the \U0001F3A0\n";
  const std::string path = folder_.write("hamlet", text);
  for (const TokenRules& rules : {kBytes, kCharacters, kWords, kWikiText, kNames}) {
    const Vocabulary v = counted_vocabulary({path}, rules, {}, cache());
    const TokenRange tokens = tokenised({path}, v, cache());
    EXPECT_EQ(ids_of(tokens), v.encode(text).ids);
    EXPECT_EQ(tokens.store->characters(), 35);
    EXPECT_EQ(tokens.store->unknown(), 0);
    EXPECT_EQ(tokens.name, path);
  }
}

TEST_F(CorpusFolder, IdsOfEveryWidthReadBack) {
  for (const int distinct : {250, 260, 66000}) {
    std::string text;
    for (int i = 0; i < distinct; ++i) text += std::to_string(i) + (i % 10 == 0 ? "\n" : " ");
    const std::string path = folder_.write("numbers", text);
    const Vocabulary v = counted_vocabulary({path}, kWords, {}, cache());
    ASSERT_EQ(v.size(), distinct + 1);
    EXPECT_EQ(v.decode(ids_of(tokenised({path}, v, cache()))), v.decode(v.encode(text).ids));
  }
}

TEST_F(CorpusFolder, PiecesOfTheFileDoNotShow) {
  // Pieces are 2²⁰ bytes: the text's period of 11 bytes puts the border into the middle of a
  // four-byte character, of a word, and behind a newline.
  for (const std::size_t shift : {10U, 3U, 1U}) {
    std::string text(shift, 'x');
    while (text.size() < (std::size_t{1} << 20) + 1000) text += "\U0001F3A0\u00E9 two\n";
    const std::string path = folder_.write("long", text);
    for (const TokenRules& rules : {kCharacters, kWikiText, kNames}) {
      const Vocabulary v = counted_vocabulary({path}, rules, {}, cache());
      ASSERT_EQ(ids_of(tokenised({path}, v, cache())), v.encode(text).ids);
    }
  }
}

TEST_F(CorpusFolder, TextsFollowOneAnotherAndSeparatePartsStaySeparate) {
  const std::string a = folder_.write("a", "one two"), b = folder_.write("b", "\xEF\xBB\xBFtwo"),
                    c = folder_.write("c", "two three");
  const Corpus corpus = open({a, b}, kWikiText, 1, {c});
  EXPECT_EQ(text_of(corpus, corpus.train), "one two\ntwo\n");
  EXPECT_EQ(text_of(corpus, corpus.validation), "two <unk>\n");
  EXPECT_EQ(corpus.validation["token"].store->unknown(), 1);
  EXPECT_EQ(corpus.train["token"].name, a + " + " + b);
}

TEST_F(CorpusFolder, TheRatioCutsAfterAShareOfTheTokens) {
  const std::string path = folder_.write("ten", "0123456789");
  const auto parts = [&](double ratio, const TokenRules& rules, const std::string& text) {
    const Corpus c = open({text}, rules, ratio);
    return text_of(c, c.train) + "|" + text_of(c, c.validation);
  };
  EXPECT_EQ(parts(0.8, kCharacters, path), "01234567|89");
  EXPECT_EQ(parts(0.9, kCharacters, path), "012345678|");  // one token predicts nothing
  EXPECT_EQ(parts(0.55, kCharacters, path), "01234|56789");
  EXPECT_EQ(parts(1, kCharacters, path), "0123456789|");
  EXPECT_EQ(parts(0.01, kCharacters, path), "|0123456789");
  // Bytes: not inside a character. Lines: not inside a line.
  EXPECT_EQ(parts(0.5, kBytes, folder_.write("wide", "aé\U0001F3A0zz")), "aé\U0001F3A0|zz");
  EXPECT_EQ(parts(0.5, kNames, folder_.write("names", "Ann\nBob\nCy\n")), "Ann\nBob\n|Cy\n");
  for (const double bad : {0.0, -1.0, 1.5, std::nan("")}) {
    EXPECT_THROW(parts(bad, kCharacters, path), ConfigError);
  }
}

TEST_F(CorpusFolder, TheCacheIsUsedUntilTheTextChanges) {
  const std::string path = folder_.write("text", "abc");
  open({path}, kCharacters);
  ASSERT_EQ(cached(".tokens").size(), 1U);
  // What is in the cache is what comes back: another vocabulary put there shows.
  const auto kept = cached(".vocabulary");
  ASSERT_EQ(kept.size(), 1U);
  vocabulary_of("cba cba", kCharacters).write(kept[0]);
  EXPECT_EQ(counted_vocabulary({path}, kCharacters, {}, cache()).count(1), 2);
  fs::remove(kept[0]);

  EXPECT_EQ(open({path}, kCharacters).train["token"].count, 3);
  EXPECT_EQ(cached(".tokens").size(), 1U);
  // Same length, and the time of change of the old one: still another text.
  const auto time = fs::last_write_time(path);
  folder_.write("text", "xyz");
  fs::last_write_time(path, time);
  EXPECT_EQ(open({path}, kCharacters).vocabularies["token"].id("a"), -1);
  EXPECT_EQ(cached(".tokens").size(), 2U);
  open({path}, kBytes);
  EXPECT_EQ(cached(".tokens").size(), 3U);
}

TEST_F(CorpusFolder, OneByteIsAText) {
  const std::string path = folder_.write("one", "x");
  for (const TokenRules& rules : {kBytes, kCharacters, kWords}) {
    const Corpus corpus = open({path}, rules);
    EXPECT_EQ(corpus.train["token"].count, 1);
    EXPECT_EQ(text_of(corpus, corpus.train), "x");
  }
}

TEST_F(CorpusFolder, BadTextsAreNamedWithLineAndByteAndLeaveNothingBehind) {
  const Vocabulary closed = vocabulary_of("ab\n", {TokenKind::character, Newline::text, false});
  const auto error = [&](const std::string& path) {
    return error_text<FormatError>([&] { tokenised({path}, closed, cache()); });
  };
  const std::string unknown = folder_.write("unknown", "ab\nabc\n");
  EXPECT_EQ(error(unknown), unknown +
                                ": line 2, byte 5: the character 'c' is not in the vocabulary, "
                                "which has no <unk>");
  const std::string bad = folder_.write("bad", "ab\n\xC3(");
  EXPECT_EQ(error(bad), bad + ": line 2, byte 3: not UTF-8; tokens of kind byte take any bytes");
  const std::string empty = folder_.write("empty", "");
  EXPECT_EQ(error(empty), empty + ": line 1, byte 0: the file is empty");
  const std::string mark = folder_.write("mark", "\xEF\xBB\xBF");
  EXPECT_EQ(error(mark), mark + ": line 1, byte 0: the text has no tokens");
  EXPECT_TRUE(fs::is_empty(cache()));

  EXPECT_THROW(tokenised({folder_.path("absent")}, closed, cache()), IoError);
  EXPECT_THROW(tokenised({cache()}, closed, cache()), ConfigError);  // a folder
  EXPECT_THROW(tokenised({}, closed, cache()), ConfigError);
}

TEST_F(CorpusFolder, EveryDamagedByteOfATokenFileIsNoticed) {
  const Vocabulary v = vocabulary_of("abc", kCharacters);
  const std::string text = folder_.write("text", "abcabcabcab");
  tokenised({text}, v, cache());
  const std::string path = cached(".tokens").front();
  const std::string good = test::file_content(path);
  const auto error = [&](const std::string& content) {
    return error_text<FormatError>([&] { TokenFile(folder_.write("file", content), v); });
  };
  EXPECT_EQ(error(good), "");
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_NE(error(damaged), "") << "byte " << i;
    EXPECT_NE(error(good.substr(0, i)), "") << "cut to " << i;
  }
  EXPECT_NE(error(good + "12345678"), "");
  EXPECT_NE(error("carousel vocabulary 1 char").find("not a Carousel token file"),
            std::string::npos);
  EXPECT_NE(error(good.substr(0, good.size() - 8)).find("cut short"), std::string::npos);

  const std::string other =
      error_text<FormatError>([&] { TokenFile(path, vocabulary_of("abcd", kCharacters)); });
  EXPECT_EQ(other, path +
                       ": the tokens were made with another vocabulary; remove it, and it is "
                       "made again from the text");
}

/// A token file with whatever numbers, and the checksums that go with them.
std::string forged_tokens(std::uint32_t width, std::uint64_t count, std::uint64_t unknown,
                          const std::string& ids, const Vocabulary& vocabulary) {
  const auto sum_of = [](const std::string& bytes) {
    std::uint64_t sum = 0xCBF29CE484222325U;
    for (std::size_t i = 0; i < bytes.size(); i += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data() + i, 8);
      sum = (sum ^ word) * 0x9E3779B97F4A7C15U;
      sum ^= sum >> 32;
    }
    return sum;
  };
  const auto bytes_of = [](auto... numbers) {
    std::string all;
    (all.append(reinterpret_cast<const char*>(&numbers), sizeof(numbers)), ...);
    return all;
  };
  const std::string header = "CARTOKEN" + bytes_of(std::uint32_t{1}, width),
                    footer = bytes_of(count, unknown, std::uint64_t{3}, vocabulary.fingerprint(),
                                      sum_of(ids));
  return header + ids + footer + bytes_of(sum_of(header + footer));
}

TEST_F(CorpusFolder, AForgedTokenFileIsRefused) {
  const Vocabulary v = vocabulary_of("abc", kCharacters);
  const auto error = [&](std::uint32_t width, std::uint64_t count, std::uint64_t unknown,
                         const std::string& ids) {
    return error_text<FormatError>([&] {
      const TokenFile file(folder_.write("file", forged_tokens(width, count, unknown, ids, v)), v);
      std::vector<std::int32_t> all(8);
      file.read(0, file.count(), all.data());
    });
  };
  const std::string ids("\0\1\2\0\0\0\0\0", 8);
  EXPECT_EQ(error(1, 3, 0, ids), "");
  const std::uint64_t half = std::uint64_t{1} << 63, quarter = half >> 1;
  for (const auto& [width, count] :
       std::vector<std::pair<std::uint32_t, std::uint64_t>>{{4, quarter},
                                                            {2, half},
                                                            {4, half},
                                                            {4, quarter + 1},
                                                            {0, 0},
                                                            {0, 3},
                                                            {8, 1},
                                                            {1, 9},
                                                            {1, half},
                                                            {3, 2},
                                                            {0xFFFFFFFF, half}}) {
    EXPECT_NE(error(width, count, 0, ids).find("damaged"), std::string::npos) << width;
    EXPECT_NE(error(width, count, 0, "").find("damaged"), std::string::npos) << width;
  }
  EXPECT_NE(error(1, 3, 4, ids).find("damaged"), std::string::npos)
      << "more unknown than there are";
  EXPECT_NE(error(1, 3, 0, std::string("\0\x09\2\0\0\0\0\0", 8)).find("an id is 9"),
            std::string::npos);
}

TEST_F(CorpusFolder, ATokenFileThatIsCutShortWhileInUseIsAnError) {
  const Vocabulary v = vocabulary_of("abc", kCharacters);
  std::string long_text;
  for (int i = 0; i < 10'000; ++i) long_text += "abc";
  tokenised({folder_.write("text", long_text)}, v, cache());
  const std::string path = cached(".tokens").front();
  const TokenFile file(path, v);
  std::filesystem::resize_file(path, 100);
  std::vector<std::int32_t> ids(9);
  EXPECT_NE(error_text<FormatError>([&] {
              file.read(20'000, 9, ids.data());
            }).find("cut short while it was in use"),
            std::string::npos);
}

TEST_F(CorpusFolder, ReadingOutsideTheTokensIsRefused) {
  const std::string path = folder_.write("text", "0123456789");
  for (const Text& text : {Text(path), Text::in_memory("0123456789")}) {
    const Corpus corpus = open({text}, kCharacters, 0.5);
    const TokenRange &train = corpus.train["token"], &validation = corpus.validation["token"];
    Ids ids(10);
    validation.read(3, 2, ids.data());
    EXPECT_EQ(corpus.vocabularies["token"].decode(std::span(ids).first(2)), "89");
    train.read(5, 0, ids.data());
    EXPECT_THROW(train.read(4, 2, ids.data()), ShapeError);  // would reach into validation
    EXPECT_THROW(train.read(-1, 2, ids.data()), ShapeError);
    EXPECT_THROW(validation.store->read(9, 2, ids.data()), ShapeError);
    EXPECT_THROW(validation.store->read(2, INT64_MAX, ids.data()), ShapeError);
  }
}

}  // namespace
}  // namespace carousel
