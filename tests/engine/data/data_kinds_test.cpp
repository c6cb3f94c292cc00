#include "engine/data/data_kinds.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/data/labelled_data.h"
#include "engine/data/text_data.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;

Vocabulary counted(const std::string& text, const TokenRules& rules = {}) {
  VocabularyCounter counter(rules);
  counter.add(Text::in_memory(text));
  return counter.vocabulary({});
}

std::string keys_of(DataConfig& config, Options& options) {
  config.describe(options.section("data"));
  return options.toml();
}

TEST(DataKinds, EachHasItsKeysAndTheTableIsSorted) {
  std::string before;
  for (const DataKind& kind : data_kinds()) {
    EXPECT_LT(before, kind.kind);
    before = kind.kind;
    EXPECT_EQ(&data_kind(kind.kind), &kind);
    Options options;
    const auto config = kind.config();
    EXPECT_NE(keys_of(*config, options).find("\ntext = "), std::string::npos);
    for (const char* const key : {"data.text", "data.validation"}) {
      EXPECT_TRUE(options.may_change(key)) << kind.kind;
    }
    for (const char* const key : {"data.tokens", "data.train_fraction", "data.none"}) {
      EXPECT_FALSE(options.may_change(key)) << kind.kind;
    }
  }
  Options text, labelled, pairs;
  EXPECT_EQ(keys_of(*data_kind("text").config(), text),
            "[data]\ntext = \"\"\nvalidation = \"\"\ntrain_fraction = 0.9\ntokens = \"char\"\n"
            "unit = \"stream\"\nnewline = \"auto\"\nminimum_count = 1\nmaximum_vocabulary = 0\n"
            "sentencepiece = \"\"\nbyte_bpe = \"\"\nsentencepiece_kind = "
            "\"unigram\"\nvocabulary_size = 8000\n"
            "document_end = \"\"\nanswer_after = \"\"\ndevice_bytes = 1073741824\n");
  EXPECT_EQ(keys_of(*data_kind("labelled").config(), labelled),
            "[data]\ntext = \"\"\nvalidation = \"\"\ntrain_fraction = 0.9\nsplit_seed = 1\n"
            "tokens = \"char\"\nminimum_count = 1\nmaximum_vocabulary = 0\n"
            "sentencepiece = \"\"\nbyte_bpe = \"\"\nsentencepiece_kind = "
            "\"unigram\"\nvocabulary_size = 8000\n");
  EXPECT_EQ(keys_of(*data_kind("pairs").config(), pairs),
            "[data]\ntext = \"\"\nsource = \"\"\ntarget = \"\"\nvalidation = \"\"\n"
            "validation_source = \"\"\nvalidation_target = \"\"\ntrain_fraction = 0.9\n"
            "split_seed = 1\ntokens = \"char\"\nminimum_count = 1\nmaximum_vocabulary = 0\n"
            "sentencepiece = \"\"\nbyte_bpe = \"\"\nsentencepiece_kind = "
            "\"unigram\"\nvocabulary_size = 8000\n"
            "shared_vocabulary = false\n");
}

TEST(DataKinds, AnUnknownKindAndMissingColumnsAreOneError) {
  const std::string unknown = error_text<ConfigError>([] { data_kind("labeled"); });
  std::string kinds;
  for (const DataKind& kind : data_kinds()) {
    kinds += (kinds.empty() ? "" : ", ") + std::string(kind.kind);
  }
  EXPECT_TRUE(unknown.starts_with("data.kind is 'labeled', expected one of: " + kinds)) << unknown;
  EXPECT_TRUE(unknown.ends_with("; did you mean 'labelled'?")) << unknown;
  const char* const wanted[] = {"token", "label"};
  const char* const absent[] = {"token", "features"};
  expect_columns(data_kind("labelled"), wanted, "model.kind = classifier");
  EXPECT_EQ(error_text<ConfigError>(
                [&] { expect_columns(data_kind("text"), wanted, "model.kind = classifier"); }),
            "data.kind is text, which gives token, and model.kind = classifier reads token, label; "
            "expected data.kind: labelled");
  EXPECT_EQ(error_text<ConfigError>(
                [&] { expect_columns(data_kind("text"), absent, "model.kind = regressor"); }),
            "data.kind is text, which gives token, and model.kind = regressor reads token, "
            "features; expected data.kind: none has them all");
  EXPECT_EQ(error_text<ConfigError>([] {
              TextData data;
              data.document_end = "#";
              data.corpus({Text::in_memory("abc", "here")});
            }),
            "data.document_end is '#', which is no token of here");
  const auto answer_after = [](const char* token, TextData::Unit unit) {
    return error_text<ConfigError>([&] {
      TextData data;
      data.answer_after = token;
      data.unit = unit;
      data.corpus({Text::in_memory("a=b", "here")});
    });
  };
  EXPECT_EQ(answer_after("#", TextData::Unit::line),
            "data.answer_after is '#', which is no token of here");
  EXPECT_EQ(answer_after("=", TextData::Unit::stream),
            "data.answer_after is for data.unit = \"line\"");
}

TEST(Vocabularies, AreKeptByRoleInACheckpointsMetadata) {
  Vocabularies some;
  some.add("token", counted("abc"));
  Metadata metadata{{"carousel.config", "x"}};
  some.write(metadata);
  // The one key that a checkpoint with one vocabulary has always had.
  EXPECT_EQ(metadata.at("carousel.vocabulary"), some["token"].text());
  EXPECT_EQ(metadata.size(), 2U);
  const std::string labels = "New York\nParis\n";
  some.add("label", counted(labels, {TokenKind::line, Newline::text, false}));
  some.write(metadata);
  EXPECT_EQ(metadata.at("carousel.vocabulary.label"), some["label"].text());
  const Vocabularies read = Vocabularies::read(metadata, "file");
  ASSERT_EQ(read.by_role().size(), 2U);
  EXPECT_EQ(read["token"].text(), some["token"].text());
  EXPECT_EQ(read["label"].text(), some["label"].text());
  EXPECT_EQ(read["label"].token(0), "New York");
  EXPECT_EQ(error_text<ConfigError>([&] { some["target"]; }),
            "the data has no vocabulary for 'target', expected one of: label, token");
  metadata["carousel.vocabulary.label"] += "more";
  EXPECT_NE(error_text<FormatError>([&] { Vocabularies::read(metadata, "file"); }).find("file"),
            std::string::npos);
}

TEST(Vocabularies, TellTheFirstTokenThatDiffers) {
  const auto with = [](const std::string& text) {
    Vocabularies result;
    result.add("token", counted(text));
    return result;
  };
  const auto error = [&](const Vocabularies& a, const Vocabularies& b) {
    return error_text<FormatError>([&] { a.expect_same_tokens(b, "f"); });
  };
  EXPECT_EQ(error(with("aab"), with("aaaabb")), "");  // counts do not matter
  EXPECT_EQ(error(Vocabularies(), with("ab")), "");   // nothing is recorded, nothing differs
  EXPECT_EQ(error(with("aab"), with("abb")),
            "f: token 1 of its vocabulary is 'a', expected 'b' as in data.text");
  EXPECT_EQ(error(with("abc"), with("ab")),
            "f: its vocabulary has 4 tokens, expected the 3 of data.text");
}

}  // namespace
}  // namespace carousel
