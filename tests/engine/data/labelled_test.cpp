#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/data/labelled_data.h"
#include "engine/data/samplers.h"
#include "kernels/common/check.h"
#include "tests/support/batches.h"
#include "tests/support/damage.h"

namespace carousel {
namespace {

using test::error_text;
using test::TemporaryFolder;
using Ids = std::vector<std::int32_t>;
using Example = std::pair<std::string, std::string>;  // label, text

const char* const kThree = "fr\tle chat\nde\tdie Katze\nfr\tla rue\n";

LabelledData all_training(TokenKind kind = TokenKind::character) {
  LabelledData data;
  data.train_fraction = 1;
  data.tokens.rules.kind = kind;
  return data;
}

Ids ids_of(const TokenRange& column) {
  Ids ids(static_cast<std::size_t>(column.count));
  column.read(0, column.count, ids.data());
  return ids;
}

// The examples that the columns of a split stand for.
std::vector<Example> examples_of(const Corpus& corpus, const Split& split) {
  std::vector<Example> examples;
  if (split.empty()) return examples;
  const Vocabulary& tokens = corpus.vocabularies["token"];
  std::string text = tokens.decode(ids_of(split["token"]));
  for (const std::int32_t label : ids_of(split["label"])) {
    const std::size_t end = text.find('\n');
    examples.emplace_back(corpus.vocabularies["label"].token(label), text.substr(0, end));
    text.erase(0, end + 1);
  }
  EXPECT_EQ(text, "");
  return examples;
}

Corpus corpus_of(const std::string& content, const LabelledData& data = all_training()) {
  return data.corpus(Text::in_memory(content, "here"));
}

TEST(Labelled, ColumnsWorkedByHand) {
  const Corpus corpus = corpus_of("b c\tXY\na\tX\n");
  const Vocabulary& labels = corpus.vocabularies["label"];
  ASSERT_EQ(labels.size(), 2);  // numbered by their text
  EXPECT_EQ(labels.token(0), "a");
  EXPECT_EQ(labels.token(1), "b c");
  EXPECT_EQ(ids_of(corpus.train["label"]), (Ids{1, 0}));
  // <unk>, <bos>, <eos>, then X, which is more frequent than Y.
  EXPECT_EQ(ids_of(corpus.train["token"]), (Ids{1, 3, 4, 2, 1, 3, 2}));
  EXPECT_TRUE(corpus.lines);
  EXPECT_TRUE(corpus.validation.empty());
  EXPECT_EQ(corpus.train["token"].store->characters(), 5);  // with an end of line each
}

TEST(Labelled, FileFolderAndMemoryGiveTheSameExamples) {
  const TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  const std::string file = folder.write("examples.tsv", std::string("\xEF\xBB\xBF") + kThree);
  std::filesystem::create_directory(folder.path("by label"));
  folder.write("by label/fr.txt", "le chat\nla rue");  // no newline at the end
  folder.write("by label/de.list", "die Katze\n");
  folder.write("by label/.hidden", "");
  for (const TokenKind kind : {TokenKind::byte, TokenKind::character, TokenKind::word}) {
    LabelledData data = all_training(kind);
    const Corpus memory = data.corpus(Text::in_memory(kThree));
    const std::vector<Example> want = {{"fr", "le chat"}, {"de", "die Katze"}, {"fr", "la rue"}};
    EXPECT_EQ(examples_of(memory, memory.train), want);
    for (int again = 0; again < 2; ++again) {  // made, then read from the cache
      data.text = file;
      const Corpus from_file = data.open(cache);
      EXPECT_EQ(examples_of(from_file, from_file.train), want);
      EXPECT_EQ(ids_of(from_file.train["token"]), ids_of(memory.train["token"]));
      data.text = folder.path("by label");
      const Corpus from_folder = data.open(cache);
      const std::vector<Example> by_label = {want[1], want[0], want[2]};
      EXPECT_EQ(examples_of(from_folder, from_folder.train), by_label);
      EXPECT_EQ(from_folder.vocabularies["label"].text(), memory.vocabularies["label"].text());
    }
  }
  // A file's new name is another label, though nothing in the file has changed.
  std::filesystem::rename(folder.path("by label/fr.txt"), folder.path("by label/it"));
  LabelledData data = all_training();
  data.text = folder.path("by label");
  EXPECT_EQ(data.open(cache).vocabularies["label"].token(1), "it");
}

TEST(Labelled, TheCacheIsMadeAgainIfAnyPartOfItIsGone) {
  const TemporaryFolder folder;
  LabelledData data = all_training();
  data.train_fraction = 0.5;
  data.text = folder.write("examples.tsv", kThree);
  const std::string cache = folder.path("cache");
  const Corpus made = data.open(cache);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(cache)) files.push_back(entry);
  EXPECT_EQ(files.size(), 6U);
  for (const auto& file : files) {
    std::filesystem::remove(file);
    const Corpus again = data.open(cache);
    EXPECT_EQ(examples_of(again, again.train), examples_of(made, made.train));
    EXPECT_EQ(examples_of(again, again.validation), examples_of(made, made.validation));
    EXPECT_TRUE(std::filesystem::exists(file));
  }
}

// Files are often sorted by label, so a split by position would leave labels out.
TEST(Labelled, TheSplitIsRandomWithinEachLabelAndExact) {
  struct Case {
    std::vector<int> examples;  // of each label
    double fraction;
    std::size_t train;
  };
  const Case cases[] = {{{50, 30, 20}, 0.9, 90}, {{50, 30, 20}, 0.5, 50}, {{1, 1, 8}, 0.8, 8},
                        {{1, 1}, 0.5, 2},        {{3, 3, 3}, 0.67, 6},    {{400, 4}, 1, 404}};
  for (const Case& c : cases) {
    std::string content;
    std::multiset<Example> all;
    for (std::size_t label = 0; label < c.examples.size(); ++label) {
      for (int i = 0; i < c.examples[label]; ++i) {
        all.emplace(std::string(1, static_cast<char>('a' + label)), std::to_string(i));
        content += std::string(1, static_cast<char>('a' + label)) + "\t" + std::to_string(i) + "\n";
      }
    }
    LabelledData data = all_training();
    data.train_fraction = c.fraction;
    std::set<std::vector<Example>> splits;
    for (const std::int64_t seed : {1, 2, 3, 1}) {
      data.split_seed = seed;
      const Corpus corpus = corpus_of(content, data);
      const auto train = examples_of(corpus, corpus.train);
      const auto validation = examples_of(corpus, corpus.validation);
      EXPECT_EQ(train.size(), c.train);
      std::multiset<Example> both(train.begin(), train.end());
      both.insert(validation.begin(), validation.end());
      EXPECT_EQ(both, all);
      for (std::size_t label = 0; label < c.examples.size(); ++label) {
        const std::string name(1, static_cast<char>('a' + label));
        const auto count = std::count_if(train.begin(), train.end(),
                                         [&](const Example& e) { return e.first == name; });
        EXPECT_GE(count, 1);
        EXPECT_NEAR(static_cast<double>(count), c.fraction * c.examples[label], 1.0);
      }
      splits.insert(validation);
    }
    if (all.size() == 100) {
      EXPECT_EQ(splits.size(), 3U);  // the seed decides, and it alone
    }
  }
}

TEST(Labelled, OtherTextsTakeTheVocabulariesOfTraining) {
  const LabelledData data = all_training();
  const Corpus train = corpus_of(kThree);
  const Corpus other = data.evaluation(Text::in_memory("de\tKatze!\n"), train.vocabularies, "");
  EXPECT_EQ(examples_of(other, other.validation), (std::vector<Example>{{"de", "Katze<unk>"}}));
  EXPECT_EQ(other.validation["token"].store->unknown(), 1);
  EXPECT_TRUE(other.train.empty());
  const Corpus inputs = data.inputs(Text::in_memory("la\nrue\tla"), train.vocabularies, "");
  EXPECT_EQ(train.vocabularies["token"].decode(ids_of(inputs.validation["token"])),
            "la\nrue<unk>la\n");
  EXPECT_EQ(inputs.validation.find("label"), nullptr);
}

TEST(Labelled, WhatIsNoExampleIsNamedWithFileLineAndByte) {
  struct Case {
    std::string content, error;  // after the name
  };
  const std::string expected = ", expected label<TAB>text";
  const Case cases[] = {
      {"", "line 1, byte 0: the text is empty"},
      {"a\tb\nc d\n", "line 2, byte 4: 'c\\sd' has no tab" + expected},
      {"a\tb\n\nc\td\n", "line 2, byte 4: the line is empty" + expected},
      {"a\tb\n\td\n", "line 2, byte 4: the label is empty" + expected},
      {"a\tb\nc\t\n", "line 2, byte 4: the text is empty" + expected},
      {"a\tb\nc\t", "line 2, byte 4: the text is empty" + expected},
      {"a\tb\nc\td\te\n", "line 2, byte 4: 'c\\td\\te' has more than one tab" + expected},
      {"a\tb\n\xFF\td\n", "line 2, byte 4: the label is not UTF-8" + expected},
      {"a\tb\nc\td\xFF\n", "line 2, byte 7: not UTF-8; tokens of kind byte take any bytes"},
      {"a\tb\nc\td\xC3", "line 2, byte 7: not UTF-8; tokens of kind byte take any bytes"},
      {"a\tb\na\tc\n", "every example has the label 'a', expected two labels or more"},
      {"a\tb\n" + std::string(90, 'x'),
       "line 2, byte 4: '" + std::string(40, 'x') + "…' has no tab" + expected},
      {"a\tb\n" + std::string((1 << 24) + 1, 'x'),
       "line 2, byte 4: a line of more than 16777216 bytes; is this text?"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(error_text<FormatError>([&] { corpus_of(c.content); }), "here: " + c.error);
  }
  EXPECT_NE(
      error_text<FormatError>([] { corpus_of("a\t \nb\tc\n", all_training(TokenKind::word)); }),
      "");  // a text without words
  EXPECT_EQ(error_text<FormatError>([] {
              all_training().evaluation(Text::in_memory("fr\tla\nes\tel\n", "other"),
                                        corpus_of(kThree).vocabularies, "");
            }),
            "other: line 2, byte 6: the label 'es' is not among the 2 labels of the training data");
  LabelledData data = all_training();
  data.train_fraction = 0;
  EXPECT_THROW(corpus_of(kThree, data), ConfigError);
}

TEST(Labelled, FoldersThatAreNotOneFileForEachLabelAreRefused) {
  const TemporaryFolder folder;
  LabelledData data = all_training();
  const auto error = [&](const std::string& name) {
    data.text = folder.path(name);
    return error_text<Error>([&] { data.open(folder.path("cache")); });
  };
  for (const char* const name : {"twice", "empty", "nested", "hole", "blank"}) {
    std::filesystem::create_directory(folder.path(name));
  }
  folder.write("twice/a.txt", "x\n");
  folder.write("twice/a.tsv", "y\n");
  EXPECT_NE(error("twice").find("have the label 'a', expected one file"), std::string::npos);
  EXPECT_NE(error("empty").find("the folder is empty, expected a file for each label"),
            std::string::npos);
  std::filesystem::create_directory(folder.path("nested/b"));
  folder.write("nested/a", "x\n");
  EXPECT_NE(error("nested").find("nested/b is not a regular file"), std::string::npos);
  folder.write("hole/a", "x\n");
  folder.write("hole/b", "");
  EXPECT_EQ(error("hole"), folder.path("hole/b") + ": line 1, byte 0: the file is empty");
  folder.write("blank/a", "x\n");
  folder.write("blank/b", "x\n\ny\n");
  EXPECT_EQ(error("blank"), folder.path("blank/b") +
                                ": line 2, byte 2: the text is empty, expected an example on each "
                                "line");
}

// Whatever the bytes, the columns agree or there is one error that names the text.
TEST(Labelled, EveryDamagedByteGivesColumnsThatAgreeOrAnError) {
  const std::string good = "aé\tx y\nb\tz\U0001F3A0\naé\tw\n";
  int accepted = 0, refused = 0;
  for (const TokenKind kind : {TokenKind::byte, TokenKind::character, TokenKind::word}) {
    const LabelledData data = all_training(kind);
    const auto examine = [&](const std::string& content) {
      try {
        const Corpus corpus = corpus_of(content, data);
        ++accepted;
        const auto batches = example_batches(corpus, corpus.train, {.batch = 2});
        EXPECT_EQ(batches->counted_per_epoch(), corpus.train["label"].count);
        for (const std::int32_t label : ids_of(corpus.train["label"])) {
          EXPECT_FALSE(corpus.vocabularies["label"].token(label).empty());
        }
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
