#include "engine/text/subwords.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/data/labelled_data.h"
#include "engine/data/pairs_data.h"
#include "engine/data/text_data.h"
#include "engine/text/prompt.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;
using test::TemporaryFolder;

// Lines of a small language, with what needs care: accents, digits, punctuation.
std::string language(int lines) {
  const char* const subjects[] = {"le chat", "la maison", "l'été", "un garçon",
                                  "«\u00a0elle\u00a0»"};
  const char* const verbs[] = {"mange", "regarde", "n'a pas vu", "préfère"};
  std::string text;
  for (int i = 0; i < lines; ++i) {
    text += fmt::format("{} {} {} {}.\n", subjects[i % 5], verbs[i / 5 % 4], i * 37 % 1000,
                        subjects[i * i % 5]);
  }
  return text;
}

VocabularyLimits limits(SubwordOptions::Kind kind, std::int64_t size = 90) {
  return {.subwords = {.file = {}, .kind = kind, .size = size}};
}

Vocabulary learnt(SubwordOptions::Kind kind, Newline newline) {
  VocabularyCounter counter({TokenKind::sentencepiece, newline, true});
  counter.add(Text::in_memory(language(300)));
  return counter.vocabulary(limits(kind));
}

const SubwordOptions::Kind kKinds[] = {SubwordOptions::Kind::unigram, SubwordOptions::Kind::bpe};

TEST(Subwords, LinesComeBackNormalised) {
  for (const auto kind : kKinds) {
    for (const Newline newline : {Newline::text, Newline::eos}) {
      const Vocabulary vocabulary = learnt(kind, newline);
      const std::string text = language(20);
      EXPECT_EQ(vocabulary.decode(vocabulary.encode("le chat\nl'été 12 34\n\nla\n").ids),
                "le chat\nl'été 12 34\n\nla\n");
      // NFKC makes a blank of a non-breaking one; runs of blanks are one, and lines begin with none.
      EXPECT_EQ(vocabulary.decode(vocabulary.encode("  «\u00a0elle\u00a0»   mange ").ids),
                "« elle » mange");
      const Encoded encoded = vocabulary.encode(text);
      EXPECT_EQ(encoded.unknown, 0);
      const auto characters = std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
      });
      EXPECT_LT(std::ssize(encoded.ids), characters);
    }
  }
}

TEST(Subwords, SpecialTokensAreTheVocabularysOwn) {
  const Vocabulary lines = learnt(SubwordOptions::Kind::unigram, Newline::line);
  EXPECT_EQ(lines.unknown(), 0);
  EXPECT_EQ(lines.begin(), 1);
  EXPECT_EQ(lines.end(), 2);
  EXPECT_EQ(lines.size(), 90) << "SentencePiece's own three are these";
  EXPECT_EQ(lines.id("<s>"), -1);
  const Vocabulary stream = learnt(SubwordOptions::Kind::unigram, Newline::text);
  EXPECT_EQ(line_end_token(stream), stream.id("\n"));
  EXPECT_EQ(stream.count(stream.id("\n")), 300);
  const Encoded unknown = stream.encode("le \u65e5");
  EXPECT_EQ(unknown.unknown, 1);
  EXPECT_EQ(unknown.ids.back(), stream.unknown());
  const Encoded prompt = encode_prompt(lines, "<bos>le chat<unk>", "prompt");
  EXPECT_EQ(prompt.ids.front(), lines.begin());
  EXPECT_EQ(prompt.ids.back(), lines.unknown());
  EXPECT_EQ(prompt.unknown, 0);
}

TEST(Subwords, TheModelIsInTheTextOfTheVocabulary) {
  for (const auto kind : kKinds) {
    const Vocabulary vocabulary = learnt(kind, Newline::line);
    EXPECT_EQ(vocabulary.text(), learnt(kind, Newline::line).text()) << "learnt twice";
    const Vocabulary read = Vocabulary::parse(vocabulary.text(), "file");
    EXPECT_EQ(read.text(), vocabulary.text());
    const std::string text = language(30);
    EXPECT_EQ(read.encode(text).ids, vocabulary.encode(text).ids);
  }
  EXPECT_NE(learnt(kKinds[0], Newline::line).text(), learnt(kKinds[1], Newline::line).text());
  const std::string whole = learnt(kKinds[0], Newline::line).text();
  const auto error = [](const std::string& text) {
    return error_text<FormatError>([&] { Vocabulary::parse(text, "file"); });
  };
  EXPECT_NE(error(whole.substr(0, whole.size() - 5) + "\n").find("file: line 92: "),
            std::string::npos);
  EXPECT_NE(error(whole.substr(0, whole.rfind("model\t"))), "");
  std::string other = whole;
  other.replace(other.find("model\t") + 6, 4, "????");
  EXPECT_EQ(error(other), "file: line 92: not base64: '?' at byte 0");
  const std::size_t last = whole.rfind('\n', whole.rfind("model\t") - 2) + 1;
  other = whole.substr(0, last) + "zzzz\t1\n" + whole.substr(whole.rfind("model\t"));
  EXPECT_EQ(error(other), "file: line 92: the model has 91 tokens, expected 90");
}

TEST(Subwords, AreReadFromAFileOrLearnt) {
  const TemporaryFolder folder;
  const std::string text = folder.write("text", language(300)), cache = folder.path("cache");
  TextData data;
  data.text = text;
  data.tokens.rules.kind = TokenKind::sentencepiece;
  data.tokens.limits = limits(SubwordOptions::Kind::bpe);
  const Corpus first = data.open(cache), again = data.open(cache);
  EXPECT_EQ(first.vocabularies["token"].text(), again.vocabularies["token"].text());
  const std::string model = first.vocabularies["token"].subwords()->model();
  data.tokens.limits.subwords.file = folder.write("some.model", model);
  const Corpus read = data.open(cache);
  EXPECT_EQ(read.vocabularies["token"].text(), first.vocabularies["token"].text());
  EXPECT_EQ(read.train["token"].count, first.train["token"].count);
  data.tokens.limits.subwords.size = 70;  // of what is learnt, and nothing is
  EXPECT_EQ(data.open(cache).vocabularies["token"].size(), first.vocabularies["token"].size());
  data.tokens.limits.subwords.file = folder.write("none.model", "text");
  EXPECT_EQ(error_text<FormatError>([&] { data.open(cache); }),
            folder.path("none.model") + ": not a model of SentencePiece");
  data.tokens.limits.subwords = SubwordOptions();
  EXPECT_TRUE(error_text<ConfigError>([&] {
                data.open(cache);
              }).starts_with("data.vocabulary_size is 8000, and SentencePiece refuses: "));
}

TEST(Subwords, AllKindsOfTextsHaveThem) {
  PairsData pairs;
  pairs.train_fraction = 1;
  pairs.shared_vocabulary = true;
  pairs.tokens.rules.kind = TokenKind::sentencepiece;
  pairs.tokens.limits = limits(SubwordOptions::Kind::unigram);
  LabelledData labelled;
  labelled.train_fraction = 1;
  labelled.tokens = pairs.tokens;
  std::string two, classes;
  for (int i = 0; i < 100; ++i) {
    two += fmt::format("le chat {}\tla maison {}\n", i, i * i);
    classes += fmt::format("{}\tle garçon préfère {}\n", i % 2, i * 7);
  }
  pairs.tokens.limits.subwords.size = labelled.tokens.limits.subwords.size = 50;
  const Corpus corpus = pairs.corpus({.sources = Text::in_memory(two)});
  const auto decoded = [](const Corpus& of, const char* column, const Split& split) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(split[column].count));
    split[column].read(0, split[column].count, ids.data());
    return of.vocabularies[column].decode(ids);
  };
  EXPECT_TRUE(decoded(corpus, "source", corpus.train).starts_with("le chat 0\nle chat 1\n"));
  EXPECT_TRUE(decoded(corpus, "token", corpus.train).starts_with("la maison 0\nla maison 1\n"));
  const Corpus examples = labelled.corpus(Text::in_memory(classes));
  EXPECT_TRUE(decoded(examples, "token", examples.train).starts_with("le garçon préfère 0\n"));
  EXPECT_EQ(error_text<FormatError>([&] { pairs.corpus({.sources = Text::in_memory("a\t \n")}); }),
            "text: line 1, byte 0: the target is empty, expected source<TAB>target");
  EXPECT_EQ(error_text<FormatError>(
                [&] { pairs.corpus({.sources = Text::in_memory(std::string("a\tb\0\n", 5))}); }),
            "text: line 1, byte 3: a character U+0000, expected text");
}

TEST(Subwords, Base64IsThatOfTheRfc) {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
      {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(base64(bytes), text);
    EXPECT_EQ(from_base64(text), bytes);
  }
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(from_base64(base64(all)), all);
  for (const char* const bad : {"Zg=", "Z===", "Zg==Zg==", "Z=g=", "Zm9*", "===="}) {
    EXPECT_THROW(from_base64(bad), FormatError) << bad;
  }
}

}  // namespace
}  // namespace carousel
