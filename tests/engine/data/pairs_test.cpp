#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/data/pairs_data.h"
#include "engine/data/samplers.h"
#include "kernels/common/check.h"
#include "tests/support/batches.h"
#include "tests/support/damage.h"

namespace carousel {
namespace {

using test::error_text;
using test::TemporaryFolder;
using Ids = std::vector<std::int32_t>;
using Example = std::pair<std::string, std::string>;  // source, target

const char* const kThree = "the cat\tle chat\nGo!\tVa !\nthe street\tla rue\n";

PairsData all_training(TokenKind kind = TokenKind::character) {
  PairsData data;
  data.train_fraction = 1;
  data.tokens.rules.kind = kind;
  return data;
}

PairTexts pairs(const std::string& content) {
  return {.sources = Text::in_memory(content, "here")};
}

Ids ids_of(const TokenRange& column) {
  Ids ids(static_cast<std::size_t>(column.count));
  column.read(0, column.count, ids.data());
  return ids;
}

// The lines of a column, as text.
std::vector<std::string> lines_of(const Corpus& corpus, const Split& split, const char* column) {
  std::vector<std::string> lines;
  std::istringstream text(corpus.vocabularies[column].decode(ids_of(split[column])));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

std::vector<Example> pairs_of(const Corpus& corpus, const Split& split) {
  std::vector<Example> result;
  if (split.empty()) return result;
  const auto sources = lines_of(corpus, split, "source"),
             targets = lines_of(corpus, split, "token");
  EXPECT_EQ(sources.size(), targets.size());
  for (std::size_t i = 0; i < sources.size(); ++i) result.emplace_back(sources[i], targets[i]);
  return result;
}

const std::vector<Example> kThreePairs = {
    {"the cat", "le chat"}, {"Go!", "Va !"}, {"the street", "la rue"}};

TEST(Pairs, ColumnsWorkedByHand) {
  const Corpus corpus = all_training(TokenKind::word).corpus(pairs("b a\tX Y X\nb\tX\n"));
  // Of both: <unk>, <bos>, <eos>, then the more frequent word.
  EXPECT_EQ(ids_of(corpus.train["source"]), (Ids{1, 3, 4, 2, 1, 3, 2}));
  EXPECT_EQ(ids_of(corpus.train["token"]), (Ids{1, 3, 4, 3, 2, 1, 3, 2}));
  EXPECT_EQ(corpus.vocabularies["source"].token(4), "a");
  EXPECT_EQ(corpus.vocabularies["token"].token(4), "Y");
  EXPECT_TRUE(corpus.lines);
  EXPECT_TRUE(corpus.validation.empty());
  EXPECT_TRUE(corpus.notices.empty());
  EXPECT_EQ(corpus.train["source"].store->characters(), 6);  // with an end of line each
  EXPECT_EQ(corpus.train["token"].store->characters(), 8);
}

TEST(Pairs, OneVocabularyCanBeCountedOverBothSides) {
  PairsData data = all_training(TokenKind::word);
  data.shared_vocabulary = true;
  const Corpus corpus = data.corpus(pairs("b a\tc c c\nb\tb c\n"));
  EXPECT_EQ(corpus.vocabularies["source"].text(), corpus.vocabularies["token"].text());
  // c four times, b three times, a once.
  EXPECT_EQ(ids_of(corpus.train["source"]), (Ids{1, 4, 5, 2, 1, 4, 2}));
  EXPECT_EQ(ids_of(corpus.train["token"]), (Ids{1, 3, 3, 3, 2, 1, 4, 3, 2}));
  // One that is given for the targets is that of the sources, too.
  const Corpus other = data.corpus(pairs("c\tq\n"), {}, "", corpus.vocabularies);
  EXPECT_EQ(ids_of(other.train["source"]), (Ids{1, 3, 2}));
  EXPECT_EQ(other.vocabularies["source"].text(), corpus.vocabularies["token"].text());
}

TEST(Pairs, OneFileTwoFilesAndMemoryGiveTheSamePairs) {
  const TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::string both = folder.write("both.tsv", std::string("\xEF\xBB\xBF") + kThree);
  const std::string sources = folder.write("a.en", "the cat\nGo!\nthe street\n");
  const std::string targets =
      folder.write("a.fr", "le chat\nVa !\nla rue");  // no newline at the end
  for (const TokenKind kind : {TokenKind::byte, TokenKind::character, TokenKind::word}) {
    for (const bool shared : {false, true}) {
      PairsData data = all_training(kind);
      data.shared_vocabulary = shared;
      const Corpus memory = data.corpus(pairs(kThree));
      EXPECT_EQ(pairs_of(memory, memory.train), kThreePairs);
      for (int again = 0; again < 2; ++again) {  // made, then read from the cache
        data.text = both;
        data.source = data.target = "";
        const Corpus from_one = data.open(cache);
        data.text = "";
        data.source = sources;
        data.target = targets;
        const Corpus from_two = data.open(cache);
        for (const Corpus* const corpus : {&from_one, &from_two}) {
          EXPECT_EQ(ids_of(corpus->train["source"]), ids_of(memory.train["source"]));
          EXPECT_EQ(ids_of(corpus->train["token"]), ids_of(memory.train["token"]));
        }
      }
    }
  }
}

TEST(Pairs, TheCacheIsMadeAgainIfAnyPartOfItIsGone) {
  const TemporaryFolder folder;
  PairsData data = all_training();
  data.train_fraction = 0.5;
  std::string content;
  for (int i = 0; i < 40; ++i) content += fmt::format("{}\t{}\n", i, i * i);
  data.text = folder.write("pairs.tsv", content);
  const std::string cache = folder.path("cache");
  const Corpus made = data.open(cache);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(cache)) files.push_back(entry);
  EXPECT_EQ(files.size(), 6U);
  for (const auto& file : files) {
    std::filesystem::remove(file);
    const Corpus again = data.open(cache);
    EXPECT_EQ(pairs_of(again, again.train), pairs_of(made, made.train));
    EXPECT_EQ(pairs_of(again, again.validation), pairs_of(made, made.validation));
    EXPECT_TRUE(std::filesystem::exists(file));
  }
  // The same file as sources alone is other text: nothing of the pairs is taken for it.
  const Corpus inputs = data.inputs(data.text.string(), made.vocabularies, cache);
  EXPECT_EQ(lines_of(inputs, inputs.validation, "source").front(), "0<unk>0");
}

// Lines of a few sources, of which each has several targets.
std::string recurring(int sources, int targets) {
  std::string content;
  for (int t = 0; t < targets; ++t) {
    for (int s = 0; s < sources; ++s) {
      content += fmt::format("s{}\tt{}\n", s, t);
    }
  }
  return content;
}

TEST(Pairs, AllPairsOfASourceAreOnOneSideOfTheSplit) {
  for (const double fraction : {0.9, 0.5, 0.1}) {
    PairsData data = all_training();
    data.train_fraction = fraction;
    std::set<std::set<std::string>> chosen;
    for (const std::int64_t seed : {1, 2, 3, 1}) {
      data.split_seed = seed;
      const Corpus corpus = data.corpus(pairs(recurring(500, 3)));
      std::map<std::string, int> train, validation;
      for (const auto& [source, target] : pairs_of(corpus, corpus.train)) ++train[source];
      for (const auto& [source, target] : pairs_of(corpus, corpus.validation)) ++validation[source];
      for (const auto* const side : {&train, &validation}) {
        for (const auto& [source, count] : *side) EXPECT_EQ(count, 3) << source;
      }
      EXPECT_EQ(train.size() + validation.size(), 500U);
      // At most 11 is the standard deviation of a binomial distribution of 500.
      EXPECT_NEAR(static_cast<double>(train.size()), 500 * fraction, 45);
      std::set<std::string> sources;
      for (const auto& [source, count] : validation) sources.insert(source);
      chosen.insert(sources);
    }
    EXPECT_EQ(chosen.size(), 3U);  // the seed decides, and it alone
  }
}

TEST(Pairs, MorePairsDoNotMoveThoseThatWereThere) {
  PairsData data = all_training();
  data.train_fraction = 0.7;
  const auto validation = [&](const std::string& content) {
    const Corpus corpus = data.corpus(pairs(content));
    const auto found = pairs_of(corpus, corpus.validation);
    return std::set<Example>(found.begin(), found.end());
  };
  const auto few = validation(recurring(60, 1)), many = validation(recurring(90, 2));
  EXPECT_FALSE(few.empty());
  EXPECT_TRUE(std::includes(many.begin(), many.end(), few.begin(), few.end()));
}

TEST(Pairs, TextsToValidateOnTakeTheVocabulariesOfTraining) {
  const TemporaryFolder folder;
  PairsData data;  // train_fraction is not 1
  data.text = folder.write("train.tsv", kThree);
  data.validation_source = folder.write("v.en", "the tea\n");
  data.validation_target = folder.write("v.fr", "le t\u00e9\n");
  const Corpus corpus = data.open(folder.path("cache"));
  EXPECT_EQ(pairs_of(corpus, corpus.train), kThreePairs);
  EXPECT_EQ(pairs_of(corpus, corpus.validation), (std::vector<Example>{{"the tea", "le t<unk>"}}));

  const Corpus other = data.evaluation(Text::in_memory("cat\tchaz\n"), corpus.vocabularies, "");
  EXPECT_EQ(pairs_of(other, other.validation), (std::vector<Example>{{"cat", "cha<unk>"}}));
  EXPECT_TRUE(other.train.empty());
  EXPECT_TRUE(other.lines);
  const Corpus inputs = data.inputs(Text::in_memory("the\ncat\tx"), corpus.vocabularies, "");
  EXPECT_EQ(lines_of(inputs, inputs.validation, "source"),
            (std::vector<std::string>{"the", "cat<unk><unk>"}));
  EXPECT_EQ(inputs.validation.find("token"), nullptr);
  // A line of a file is a line of the sources, empty or not.
  const Corpus gaps = data.inputs(Text::in_memory("\nthe\n\n"), corpus.vocabularies, "");
  const Vocabulary& sources = corpus.vocabularies["source"];
  EXPECT_EQ(gaps.validation["source"].count, 2 + (2 + 3) + 2);
  EXPECT_EQ(gaps.validation["source"].count_of(sources.begin()), 3);
}

TEST(Pairs, FurtherColumnsAreNotReadAndThatIsSaid) {
  const PairsData data = all_training();
  const Corpus corpus =
      data.corpus(pairs("a\tb\tfrom a book\nc\td\ne\tf\tx\ty\n"), pairs("a\tb\t\n"));
  EXPECT_EQ(pairs_of(corpus, corpus.train),
            (std::vector<Example>{{"a", "b"}, {"c", "d"}, {"e", "f"}}));
  EXPECT_EQ(
      corpus.notices,
      (std::vector<std::string>{
          "here: 2 of 3 lines have more than two columns; those after the second are not read",
          "here: 1 of 1 lines have more than two columns; those after the second are not "
          "read"}));
  // Again when the tokens are kept; of the same file as sources alone there is nothing to tell.
  const TemporaryFolder folder;
  PairsData kept = all_training();
  kept.text = folder.write("pairs.tsv", "a\tb\tfrom a book\nc\td\n");
  const std::string cache = folder.path("cache");
  const Corpus first = kept.open(cache), again = kept.open(cache);
  EXPECT_EQ(first.notices.size(), 1U);
  EXPECT_EQ(again.notices, first.notices);
  for (int time = 0; time < 2; ++time) {
    EXPECT_TRUE(kept.inputs(kept.text.string(), first.vocabularies, cache).notices.empty());
  }
}

TEST(Pairs, WhatIsNoPairIsNamedWithFileLineAndByte) {
  struct Case {
    std::string content, error;  // after the name
  };
  const std::string expected = ", expected source<TAB>target";
  const Case cases[] = {
      {"", "line 1, byte 0: the text is empty"},
      {"a\tb\nc d\n", "line 2, byte 4: 'c\\sd' has no tab" + expected},
      {"a\tb\n\nc\td\n", "line 2, byte 4: the line is empty" + expected},
      {"a\tb\n\td\n", "line 2, byte 4: the source is empty" + expected},
      {"a\tb\nc\t\n", "line 2, byte 4: the target is empty" + expected},
      {"a\tb\nc\t\td\n", "line 2, byte 4: the target is empty" + expected},
      {"a\tb\nc\t", "line 2, byte 4: the target is empty" + expected},
      {"a\tb\nc\xFF\td\n", "line 2, byte 5: not UTF-8; tokens of kind byte take any bytes"},
      {"a\tb\nc\td\xC3\te", "line 2, byte 7: not UTF-8; tokens of kind byte take any bytes"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(error_text<FormatError>([&] { all_training().corpus(pairs(c.content)); }),
              "here: " + c.error);
  }
  EXPECT_EQ(
      error_text<FormatError>([] { all_training(TokenKind::word).corpus(pairs("a\tb\n \tc\n")); }),
      "here: line 2, byte 4: the source is empty" + expected);
  const auto two = [](const std::string& sources, const std::string& targets) {
    return error_text<FormatError>([&] {
      all_training().corpus({.sources = Text::in_memory(sources, "a.en"),
                             .targets = Text::in_memory(targets, "a.fr")});
    });
  };
  EXPECT_EQ(two("a\nb\nc\n", "x\ny\n"),
            "a.en and a.fr have 3 and 2 lines, expected as many in both");
  EXPECT_EQ(two("a\n", "x\ny\nz"), "a.en and a.fr have 1 and 3 lines, expected as many in both");
  EXPECT_EQ(two("a\n\nc\n", "x\ny\nz\n"),
            "a.en: line 2, byte 2: the source is empty, expected a text on each line");
  EXPECT_EQ(two("a\nb\n", "x\n\n"),
            "a.fr: line 2, byte 2: the target is empty, expected a text on each line");
  PairsData data;
  data.train_fraction = 1e-9;
  EXPECT_EQ(error_text<FormatError>([&] { data.corpus(pairs(kThree)); }),
            "here: all pairs are for validation, expected some to train on: a larger "
            "data.train_fraction or another data.split_seed");
  data.train_fraction = 0;
  EXPECT_THROW(data.corpus(pairs(kThree)), ConfigError);
}

TEST(Pairs, KeysThatDoNotBelongTogetherAreRefused) {
  const TemporaryFolder folder;
  const std::string both = folder.write("both.tsv", kThree), one = folder.write("one", "a\n");
  const auto error = [&](const auto& set) {
    PairsData data;
    set(data);
    return error_text<Error>([&] { data.open(""); });
  };
  EXPECT_EQ(
      error([](PairsData&) {}),
      "data.text is not given, expected a file of pairs, or two: data.source and data.target");
  EXPECT_EQ(error([&](PairsData& data) { data.source = one; }),
            "data.source is given without data.target, expected both");
  EXPECT_EQ(
      error([&](PairsData& data) {
        data.text = both;
        data.target = one;
      }),
      "data.text and data.target are both given, expected either a file of pairs or two files");
  EXPECT_EQ(error([&](PairsData& data) {
              data.text = both;
              data.validation_target = one;
            }),
            "data.validation_target is given without data.validation_source, expected both");
  EXPECT_EQ(error([&](PairsData& data) {
              data.text = data.validation = both;
              data.validation_source = one;
            }),
            "data.validation and data.validation_source are both given, expected either a file of "
            "pairs or two files");
  const std::string absent = error([&](PairsData& data) {
    data.source = one;
    data.target = folder.path("none");
  });
  EXPECT_TRUE(absent.starts_with("data.target: opening ")) << absent;
}

// Whatever the bytes, the columns agree or there is one error that names the text.
TEST(Pairs, EveryDamagedByteGivesColumnsThatAgreeOrAnError) {
  const std::string good = "a\u00e9\tx y\nb\tz\U0001F3A0\na\u00e9\tw\n";
  int accepted = 0, refused = 0;
  for (const TokenKind kind : {TokenKind::byte, TokenKind::character, TokenKind::word}) {
    const PairsData data = all_training(kind);
    const auto examine = [&](const std::string& content) {
      try {
        const Corpus corpus = data.corpus(pairs(content));
        ++accepted;
        const auto batches = pair_batches(corpus, corpus.train, {.batch = 2, .training = false});
        EXPECT_EQ(batches->counted_per_epoch(),
                  corpus.train["token"].count -
                      corpus.train["token"].count_of(corpus.vocabularies["token"].begin()));
      } catch (const FormatError& error) {
        ++refused;
        EXPECT_TRUE(std::string(error.what()).starts_with("here: ")) << error.what();
      }
    };
    test::for_each_damage(good, examine);
  }
  EXPECT_GT(accepted, 300);
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace carousel
