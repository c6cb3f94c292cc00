#include "engine/data/labelled_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string_view>
#include <utility>

#include "engine/batches/draws.h"
#include "engine/data/example_reader.h"
#include "engine/data/text_cache.h"
#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

// Apart from every other stream of random numbers.
constexpr std::uint64_t kSplitStream = 0xDA7A'0000'0003U;

constexpr TokenRules kLabelRules{TokenKind::line, Newline::text, false};

/// Counts tokens and labels.
class Counting final : public ExampleReader {
 public:
  explicit Counting(const TokenRules& rules)
      : ExampleReader(rules), tokens_(rules), labels_(kLabelRules) {}
  TokenSink& begin(std::string_view label) override {
    labels_.token(label);
    return tokens_;
  }
  Vocabulary tokens(const VocabularyLimits& limits) const { return tokens_.vocabulary(limits); }
  Vocabulary labels() const { return labels_.vocabulary({}); }

 private:
  VocabularyCounter tokens_, labels_;
};

/// Chooses a share of the examples of each label at random.
class Choice {
 public:
  /// All but ⌊rest · N⌋ of the N examples, spread over the labels as evenly as whole numbers allow,
  /// but never all examples of a label.
  Choice(const Vocabulary& labels, double rest, std::uint64_t seed)
      : draws_({.seed = seed, .stream = kSplitStream}, 0) {
    std::int64_t before = 0, chosen_before = 0;
    for (std::int32_t id = 0; id < labels.size(); ++id) {
      const std::int64_t examples = labels.count(id);
      before += examples;
      const auto left_over = std::floor(rest * static_cast<double>(before));
      const std::int64_t chosen = before - static_cast<std::int64_t>(left_over);
      left_.push_back({examples, std::min(chosen - chosen_before, examples - 1)});
      chosen_before += left_.back().wanted;
    }
  }
  /// Whether the next example, of this label, is one of them: Knuth's algorithm S (The Art of
  /// Computer Programming, volume 2, section 3.4.2).
  bool next(std::int32_t label) {
    Left& left = left_.at(static_cast<std::size_t>(label));
    const bool chosen = left.wanted > 0 && draws_.below(left.examples) < left.wanted;
    --left.examples;
    left.wanted -= chosen ? 1 : 0;
    return chosen;
  }

 private:
  struct Left {
    std::int64_t examples = 0, wanted = 0;
  };
  std::vector<Left> left_;
  Draws draws_;
};

/// Writes the columns "token" and "label" of a split, or "token" alone.
struct SplitWriters {
  std::unique_ptr<TokenWriter> token, label;
  std::int64_t characters = 0;
};

class Writing final : public ExampleReader {
 public:
  /// `choice`: of the examples for the second of two splits; may be null.
  Writing(const Vocabularies& vocabularies, std::vector<SplitWriters>& splits, Choice* choice)
      : ExampleReader(vocabularies["token"].rules()),
        labels_(vocabularies["label"]),
        splits_(splits),
        choice_(choice) {}
  TokenSink& begin(std::string_view label) override {
    split_ = splits_.data();
    if (split_->label == nullptr) return *split_->token;
    const std::int32_t id = labels_.id(label);
    if (id < 0) {
      fail(fmt::format("the label {} is not among the {} labels of the training data", shown(label),
                       labels_.size()));
    }
    if (choice_ != nullptr && choice_->next(id)) ++split_;
    split_->label->token(label);
    return *split_->token;
  }
  void end(std::int64_t characters) override { split_->characters += characters; }

 private:
  const Vocabulary& labels_;
  std::vector<SplitWriters>& splits_;
  SplitWriters* split_ = nullptr;  ///< of the example that is read
  Choice* choice_;
};

/// Texts, where what is made of them is kept, and the rest of its name there.
struct Examples {
  Examples(std::vector<LabelledText> labelled, const std::string& folder)
      : texts(std::move(labelled)), cache(plain(texts), folder) {
    for (const LabelledText& text : texts) how += text.label ? escaped(*text.label) + '/' : "*/";
  }
  static std::vector<Text> plain(const std::vector<LabelledText>& labelled) {
    std::vector<Text> result;
    for (const LabelledText& text : labelled) result.push_back(text.text);
    return result;
  }
  std::vector<LabelledText> texts;
  TextCache cache;
  std::string how = "examples ";
};

Vocabularies vocabularies_of(const Examples& examples, const TokenOptions& options,
                             const Vocabularies& given) {
  TokenRules rules = options.rules;
  rules.newline = Newline::line;
  std::optional<Counting> counts;  // one reading for both, unless both are kept
  const auto count = [&]() -> const Counting& {
    if (!counts) counts.emplace(rules).read(examples.texts);
    return *counts;
  };
  const std::string how =
      fmt::format("{} {} {}", examples.how, static_cast<int>(rules.kind), identity(options.limits));
  Vocabularies result;
  const auto add = [&](const char* role, const Vocabulary* known, const std::string& how_counted,
                       const auto& counted) {
    result.add(role, known != nullptr ? *known : examples.cache.vocabulary(how_counted, counted));
  };
  add("token", given_vocabulary(given, "token", rules), how,
      [&] { return count().tokens(options.limits); });
  add("label", given.contains("label") ? &given["label"] : nullptr, examples.how + "labels",
      [&] { return count().labels(); });
  const Vocabulary& labels = result["label"];
  if (labels.size() < 2) {
    throw FormatError(fmt::format("{}: every example has the label {}, expected two labels or more",
                                  examples.cache.name(), shown(labels.token(0))));
  }
  return result;
}

/// One split, or with a choice two.
std::vector<Split> splits_of(const Examples& examples, const Vocabularies& vocabularies,
                             const std::vector<const char*>& columns, const std::string& how,
                             Choice* choice) {
  std::vector<Split> splits(choice == nullptr ? 1 : 2);
  std::vector<SplitWriters> writers(splits.size());
  const auto each = [&](auto&& visit) {
    for (std::size_t i = 0; i < splits.size(); ++i) {
      for (const char* const column : columns) {
        const std::string name =
            fmt::format("{} {} {} {} {:016x} {:016x}", examples.how, how, i, column,
                        vocabularies["token"].fingerprint(), vocabularies["label"].fingerprint());
        visit(splits[i], writers[i], column, name);
      }
    }
  };
  bool complete = true;
  const auto add = [&](Split& split, const char* column, std::shared_ptr<const TokenStore> store) {
    split.columns.push_back({column, whole(std::move(store), examples.cache.name())});
  };
  each([&](Split& split, SplitWriters&, const char* column, const std::string& name) {
    auto kept = examples.cache.tokens(name, vocabularies[column]);
    complete = complete && kept != nullptr;
    if (complete) add(split, column, std::move(kept));
  });
  if (complete) return splits;

  const auto writer_of = [](SplitWriters & split, const std::string& column) -> auto& {
    return column == "label" ? split.label : split.token;
  };
  each([&](Split& split, SplitWriters& to, const char* column, const std::string& name) {
    split.columns.clear();
    writer_of(to, column) = examples.cache.writer(name, vocabularies[column]);
  });
  Writing(vocabularies, writers, choice).read(examples.texts);
  examples.cache.expect_unchanged();
  each([&](Split& split, SplitWriters& to, const char* column, const std::string&) {
    add(split, column, writer_of(to, column)->finish(to.characters));
  });
  return splits;
}

/// The examples of a file, or of a folder's files in the order of their names.
std::vector<LabelledText> texts_of(const Text& text) {
  namespace fs = std::filesystem;
  const fs::path path = text.name();
  if (text.in_memory() || !fs::is_directory(path)) return {{.text = text}};
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().filename().string().starts_with('.')) continue;
    const std::string label = entry.path().stem().string();
    if (const char* const fault = fault_of(label)) {
      throw FormatError(
          fmt::format("{}: {}, expected it as the name of the file", entry.path().string(), fault));
    }
    const auto [known, is_new] = files.emplace(label, entry.path());
    if (!is_new) {
      throw FormatError(fmt::format("{}: files {} and {} have the label {}, expected one file",
                                    path.string(), known->second.filename().string(),
                                    entry.path().filename().string(), shown(label)));
    }
  }
  if (files.empty()) {
    throw FormatError(
        fmt::format("{}: the folder is empty, expected a file for each label", path.string()));
  }
  std::vector<LabelledText> texts;
  for (const auto& [label, file] : files) texts.push_back({.text = file.string(), .label = label});
  return texts;
}

const std::vector<const char*> kColumns{"token", "label"};

}  // namespace

void LabelledData::describe(OptionSection& section) {
  section.add("text", text, "a file of lines label<TAB>text, or a folder of a file for each label")
      .require()
      .may_change();
  section.add("validation", validation, "the same to evaluate on, instead of a part of the first")
      .may_change();
  section
      .add("train_fraction", train_fraction, "of the examples; the rest is for validation",
           {.least = 0, .most = 1, .above_least = true})
      .when([this] { return validation.empty(); }, "data.validation is given");
  section
      .add("split_seed", split_seed, "of the choice of examples for validation",
           {0, std::int64_t{1} << 40})
      .when([this] { return validation.empty(); }, "data.validation is given");
  tokens.describe_kind(section);
  tokens.describe_limits(section, vocabulary_from);
}

Corpus LabelledData::open(const std::string& cache, const Vocabularies& given) const {
  expect_there("data.text", text);
  expect_there("data.validation", validation);
  tokens.expect_model(given);
  std::optional<Text> also;
  if (!validation.empty()) also = validation.string();
  return corpus(text.string(), also, cache, given);
}

Corpus LabelledData::corpus(const Text& train, const std::optional<Text>& validation_text,
                            const std::string& cache, const Vocabularies& given) const {
  expect_train_fraction(train_fraction);
  const Examples examples(texts_of(train), cache);
  Corpus corpus{.vocabularies = vocabularies_of(examples, tokens, given), .lines = true};
  const Vocabularies& vocabularies = corpus.vocabularies;
  if (validation_text || train_fraction == 1) {
    corpus.train = splits_of(examples, vocabularies, kColumns, "all", nullptr).front();
    if (validation_text) {
      corpus.validation = evaluation(*validation_text, vocabularies, cache).validation;
    }
    return corpus;
  }
  Choice choice(vocabularies["label"], train_fraction, static_cast<std::uint64_t>(split_seed));
  auto splits = splits_of(examples, vocabularies, kColumns,
                          fmt::format("{} {}", train_fraction, split_seed), &choice);
  corpus.train = std::move(splits[0]);
  if (splits[1]["label"].count > 0) corpus.validation = std::move(splits[1]);
  return corpus;
}

Corpus LabelledData::evaluation(const Text& other, const Vocabularies& vocabularies,
                                const std::string& cache) const {
  const Examples examples(texts_of(other), cache);
  return {.vocabularies = vocabularies,
          .validation = splits_of(examples, vocabularies, kColumns, "all", nullptr).front(),
          .lines = true};
}

Corpus LabelledData::inputs(const Text& other, const Vocabularies& vocabularies,
                            const std::string& cache) const {
  const Examples examples({{.text = other, .label = ""}}, cache);
  return {.vocabularies = vocabularies,
          .validation = splits_of(examples, vocabularies, {"token"}, "inputs", nullptr).front(),
          .lines = true};
}

}  // namespace carousel
