// Byte-level BPE against what Hugging Face's tokenizers cuts: tests/golden/byte_bpe.json.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/data/text_data.h"
#include "engine/text/byte_pairs.h"
#include "engine/text/gpt2_words.h"
#include "engine/text/line_encoder.h"
#include "engine/text/prompt.h"
#include "engine/text/utf8.h"
#include "engine/text/vocabulary_counter.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;
using Words = std::vector<std::string>;
using test::error_text;

class ByteBpe : public testing::Test {
 protected:
  const test::Golden golden{"byte_bpe"};
  const test::TemporaryFolder folder;

  void SetUp() override {
    write_vocabulary(golden.options.at("vocabulary"));
    std::string merges = "#version: 0.2\n";
    for (const std::string merge : golden.options.at("merges")) merges += merge + "\n";
    folder.write("merges.txt", merges);
  }
  void write_vocabulary(const nlohmann::json& json) const {
    folder.write("vocab.json", json.dump());
  }
  Vocabulary vocabulary(Newline newline = Newline::text, const std::string& text = "x\n") const {
    VocabularyCounter counter({TokenKind::byte_bpe, newline, true});
    counter.add(Text::in_memory(text));
    return counter.vocabulary({.byte_bpe = folder.path()});
  }
  std::string refused() const {
    return error_text<FormatError>([&] { BytePairModel::read(folder.path()); });
  }
  std::int32_t size() const {
    return static_cast<std::int32_t>(golden.options.at("vocabulary").size());
  }
};

Words words_of(std::string_view text) {
  Gpt2Words cutter;
  Words words;
  const auto take = [&](std::string_view word) { words.emplace_back(word); };
  while (!text.empty()) {
    const Utf8Sequence s = utf8_sequence(text);
    const bool whole = s.status == Utf8Sequence::Status::whole;
    cutter.next(text.substr(0, s.bytes), whole ? s.code : Gpt2Words::kNoCharacter, take);
    text.remove_prefix(s.bytes);
  }
  cutter.finish(take);
  return words;
}

/// Ids of a text that comes in pieces of so many bytes.
Ids encoded(const Vocabulary& vocabulary, std::string_view text, std::size_t piece) {
  MemoryTokenWriter writer(vocabulary);
  Tokenizer tokenizer(vocabulary.rules(), "text", writer);
  for (std::size_t at = 0; at < text.size(); at += piece) tokenizer.feed(text.substr(at, piece));
  tokenizer.finish();
  return writer.encoded().ids;
}

TEST_F(ByteBpe, CutsAsTokenizersDoes) {
  const Vocabulary vocabulary = this->vocabulary();
  EXPECT_EQ(vocabulary.size(), size());
  const auto& cases = golden.options.at("cases");
  EXPECT_GE(cases.size(), 80U);
  for (const auto& each : cases) {
    const std::string text = each.at("text");
    SCOPED_TRACE(escaped(text));
    EXPECT_EQ(words_of(text), each.at("words").get<Words>());
    const Encoded got = vocabulary.encode(text);
    EXPECT_EQ(got.ids, each.at("ids").get<Ids>());
    EXPECT_EQ(got.unknown, 0);
    EXPECT_EQ(vocabulary.decode(got.ids), text);
    for (const std::size_t piece : {1U, 3U}) EXPECT_EQ(encoded(vocabulary, text, piece), got.ids);
    EXPECT_EQ(encode_prompt(vocabulary, text, "prompt").ids, got.ids);
  }
}

TEST_F(ByteBpe, AnyBytesComeBack) {
  const Vocabulary vocabulary = this->vocabulary();
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  std::vector<std::string> texts{all,
                                 "\xC3",
                                 "a\xE2\x82",
                                 "\xE2\x82\xE2\x82\xAC",
                                 "\xC3 \xC3"
                                 "a",
                                 "\xF0\x9F\x99",
                                 "'\xFFs \xED\xA0",
                                 "<|end\xC3of"};
  std::mt19937 draw(1);
  for (int n = 0; n < 50; ++n) {
    std::string& text = texts.emplace_back();
    for (int i = 0; i < 60; ++i) text += all[draw() % (n % 2 == 0 ? 256U : 128U)];
  }
  for (const std::string& text : texts) {
    SCOPED_TRACE(escaped(text));
    const Ids ids = vocabulary.encode(text).ids;
    EXPECT_EQ(vocabulary.decode(ids), text);
    EXPECT_EQ(encoded(vocabulary, text, 1), ids);
    EXPECT_EQ(encoded(vocabulary, text, 7), ids);
  }
  TextDecoder decoder(vocabulary);
  std::string shown;
  for (const std::int32_t id : vocabulary.encode("\xE6\x97\xA5 \xFF.").ids)
    shown += decoder.next(id);
  EXPECT_EQ(shown + decoder.finish(), "\u65e5 \uFFFD.");
}

/// Merges by the definition: each time the earliest learnt of all that are possible, the left first.
Ids merged(const BytePairModel& model, std::string_view word) {
  std::vector<std::string> parts;
  for (const char byte : word) parts.emplace_back(1, byte);
  const auto token = [&](std::int32_t id) { return model.tokens[static_cast<std::size_t>(id)]; };
  for (bool any = true; any;) {
    any = false;
    for (const auto& [left, right] : model.merges) {
      for (std::size_t i = 0; i + 1 < parts.size() && !any; ++i) {
        if (parts[i] != token(left) || parts[i + 1] != token(right)) continue;
        parts[i] += parts[i + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        any = true;
      }
      if (any) break;
    }
  }
  Ids ids;
  for (const std::string& part : parts) {
    ids.push_back(static_cast<std::int32_t>(
        std::find(model.tokens.begin(), model.tokens.end(), part) - model.tokens.begin()));
  }
  return ids;
}

// Merges in an order that no learning gives, too: a later one may be of what an earlier one lacks.
TEST(BytePairs, MergeByTheDefinition) {
  std::mt19937 draw(3);
  for (int n = 0; n < 20; ++n) {
    BytePairModel model;
    for (int byte = 0; byte < 256; ++byte) model.tokens.emplace_back(1, static_cast<char>(byte));
    Ids usable{'a', 'b', 'c'};
    while (model.merges.size() < 12) {
      const BytePairModel::Merge merge{usable[draw() % usable.size()],
                                       usable[draw() % usable.size()]};
      const std::string whole = model.tokens[static_cast<std::size_t>(merge.left)] +
                                model.tokens[static_cast<std::size_t>(merge.right)];
      if (std::count(model.tokens.begin(), model.tokens.end(), whole) > 0) continue;
      usable.push_back(static_cast<std::int32_t>(model.tokens.size()));
      model.tokens.push_back(whole);
      model.merges.push_back(merge);
    }
    std::shuffle(model.merges.begin(), model.merges.end(), draw);
    const BytePairs pairs(model.tokens, model.merges);
    for (int word = 0; word < 30; ++word) {
      std::string text;
      for (auto i = draw() % 14; i > 0; --i) text += static_cast<char>('a' + draw() % 3);
      EXPECT_EQ(pairs.cut(text), merged(model, text)) << text;
    }
  }
  const std::vector<std::string> few{"a", "b"};
  EXPECT_EQ(error_text<FormatError>([&] { BytePairs(few, {}); }),
            "there is no token for the byte 00");
}

TEST_F(ByteBpe, TheModelIsInTheTextOfTheVocabulary) {
  for (const Newline newline : {Newline::text, Newline::eos, Newline::line}) {
    const Vocabulary vocabulary = this->vocabulary(newline, "the cat\nthe hat\n\n");
    const Vocabulary read = Vocabulary::parse(vocabulary.text(), "file");
    EXPECT_EQ(read.text(), vocabulary.text());
    EXPECT_EQ(read.begin(), vocabulary.begin());
    EXPECT_EQ(read.end(), vocabulary.end());
    EXPECT_EQ(read.encode("the quick hat").ids, vocabulary.encode("the quick hat").ids);
  }
  const std::string whole = vocabulary().text();
  const auto error = [](const std::string& text) {
    return error_text<FormatError>([&] { Vocabulary::parse(text, "file"); });
  };
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    return error(text.replace(text.find(from), from.size(), to));
  };
  const std::string last =
      fmt::format("file: line {}: ", 1 + size() + golden.options["merges"].size());
  EXPECT_EQ(error(whole + "more\n"),
            fmt::format("file: line {}: 'more' is not 'merge', a tab, a token, a tab and a token",
                        2 + size() + golden.options["merges"].size()));
  EXPECT_EQ(error(whole.substr(0, whole.rfind('\t')) + "\tthere is none\n"),
            last + "'there is none' should be written 'there\\sis\\snone'");
  EXPECT_EQ(error(whole.substr(0, whole.rfind('\t')) + "\tnone\n"), last + "'none' is no token");
  EXPECT_EQ(error(whole.substr(0, whole.rfind('\t')) + "\tx\n").find(last + "merge "), 0U);
  EXPECT_EQ(with("\nA\t0", "\nAAA\t0").find(last), 0U) << "there is no token for a byte";
}

TEST_F(ByteBpe, LinesHaveTheirEndsBehindTheFilesTokens) {
  const Vocabulary stream = vocabulary(), lines = vocabulary(Newline::line, "the cat\nthe hat\n\n");
  EXPECT_EQ(stream.unknown(), -1);
  EXPECT_EQ(stream.end(), -1);
  EXPECT_EQ(line_end_token(stream), stream.id("\n"));
  EXPECT_EQ(first_token(stream), stream.id(kEndOfText));
  EXPECT_EQ(lines.begin(), size());
  EXPECT_EQ(lines.end(), size() + 1);
  EXPECT_EQ(lines.count(lines.end()), 2);
  EXPECT_EQ(first_token(lines), lines.begin());
  EXPECT_EQ(lines.decode(encoded(lines, "the cat\n\nan \xFF\n", 4)), "the cat\nan \xFF\n");
  EXPECT_EQ(vocabulary(Newline::eos).end(), size());
  // A line alone is read as in a file: the newline belongs to the white space before it.
  LineEncoder closed(stream, "lines", LineEncoder::End::closed),
      open(stream, "lines", LineEncoder::End::open);
  EXPECT_EQ(closed.next("the cat  \n"), stream.encode("the cat  \n").ids);
  EXPECT_EQ(open.next("the cat  \n"), stream.encode("the cat  ").ids);
}

TEST_F(ByteBpe, TextsAreReadByIt) {
  TextData data;
  std::string text;
  for (int i = 0; i < 40; ++i) text += fmt::format("The lazy dog's {} élèves\n\n", i);
  data.text = folder.write("text", text);
  data.tokens.rules.kind = TokenKind::byte_bpe;
  EXPECT_TRUE(error_text<ConfigError>([&] {
                data.open("");
              }).starts_with("data.tokens is byte_bpe, and data.byte_bpe is not set"));
  data.tokens.limits.byte_bpe = folder.path();
  const Corpus corpus = data.open(folder.path("cache")), again = data.open(folder.path("cache"));
  const Vocabulary& vocabulary = corpus.vocabularies["token"];
  EXPECT_EQ(vocabulary.text(), again.vocabularies["token"].text());
  std::int64_t counted = 0;
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) counted += vocabulary.count(id);
  EXPECT_EQ(counted, std::ssize(vocabulary.encode(text).ids));
  const TokenRange& train = corpus.train["token"];
  Ids ids(static_cast<std::size_t>(train.count));
  train.read(0, train.count, ids.data());
  EXPECT_TRUE(text.starts_with(vocabulary.decode(ids)));
  data.tokens.limits.byte_bpe.clear();
  const Corpus given = data.open("", corpus.vocabularies);  // that of a run will do
  EXPECT_EQ(given.train["token"].count, train.count);
  data.tokens.limits.byte_bpe = folder.path("none");
  EXPECT_NE(error_text<IoError>([&] { data.open(""); }).find("data.byte_bpe: opening"),
            std::string::npos);
}

TEST_F(ByteBpe, DamagedFilesAreRefusedInOneLine) {
  const std::string vocabulary = folder.path("vocab.json"), merges = folder.path("merges.txt");
  const auto with_merges = [&](const std::string& text) {
    folder.write("merges.txt", text);
    return refused();
  };
  const std::string first = golden.options.at("merges")[0];
  EXPECT_EQ(with_merges(first + "\nt h e\n"),
            merges + ": line 2: 't h e' is not two parts of a token with a blank between them");
  EXPECT_EQ(with_merges("# #\n"), merges + ": line 1: '##' is no token of vocab.json")
      << "the first line is a merge unless it has the version";
  EXPECT_EQ(with_merges("#version: 0.2\n\xE6\x97\xA5 a\n"),
            merges + ": line 2: '\xE6\x97\xA5' is no token of vocab.json");
  EXPECT_EQ(with_merges("#version: 0.2\nz z\n"),
            merges + ": line 2: 'zz' is no token of vocab.json");
  EXPECT_EQ(with_merges("#version: 0.2\n"), "") << "bytes alone will do";
  const auto with = [&](const char* token, const nlohmann::json& id) {
    nlohmann::json json = golden.options.at("vocabulary");
    id.is_null() ? (void)json.erase(token) : (void)(json[token] = id);
    write_vocabulary(json);
    return refused();
  };
  const std::int32_t V = size();
  EXPECT_EQ(with("A", V),
            fmt::format("{}: the id of 'A' is {}, expected 0 … {}", vocabulary, V, V - 1));
  EXPECT_EQ(with("A", "x"),
            fmt::format("{}: the id of 'A' is \"x\", expected 0 … {}", vocabulary, V - 1));
  EXPECT_EQ(with("A", 0), vocabulary + ": two tokens have the id 0");
  EXPECT_EQ(with("\xE6\x97\xA5", V),
            vocabulary + ": the token '\xE6\x97\xA5' has a character that stands for no byte");
  folder.write("vocab.json", "{\"a\": 0");
  EXPECT_EQ(refused(), vocabulary + ": not a JSON object of tokens and their ids");
  folder.write("vocab.json", "{\"a\": 0}");
  EXPECT_EQ(refused(), folder.path().string() + ": there is no token for the byte 00");
  std::filesystem::remove(folder / "vocab.json");
  EXPECT_THROW(BytePairModel::read(folder.path()), IoError);
}

}  // namespace
}  // namespace carousel
