#include "engine/data/pairs_data.h"

#include <fmt/format.h>

#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/data/pair_reader.h"
#include "engine/data/text_cache.h"
#include "kernels/common/check.h"
#include "kernels/common/random.h"

namespace carousel {
namespace {

// Apart from every other stream of random numbers.
constexpr std::uint64_t kSplitStream = 0xDA7A'0000'0006U;

// What a notice of further columns is kept by: whatever the vocabularies and the split are.
constexpr const char* kNotice = "pairs columns";

/// The sides of pairs, and where what is made of them is kept.
struct Pairs {
  Pairs(const PairTexts& texts, const std::string& folder)
      : sides(sides_of(texts)),
        cache(texts.targets ? std::vector<Text>{texts.sources, *texts.targets}
                            : std::vector<Text>{texts.sources},
              folder) {}
  /// Sources alone.
  Pairs(const Text& sources, const std::string& folder)
      : sides{{.column = "source", .text = sources, .may_be_empty = true}},
        cache({sources}, folder) {}

  std::vector<PairSide> sides;
  TextCache cache;
};

/// Whether the pairs of a source text are for validation.
class Choice {
 public:
  Choice(double train_fraction, std::uint64_t seed)
      : train_fraction_(train_fraction), source_{.seed = seed, .stream = kSplitStream} {}
  bool operator()(std::string_view text) const {
    const auto words = source_.words(fnv1a(text), 0);
    const std::uint64_t bits = std::uint64_t{words[0]} << 32 | words[1];
    return static_cast<double>(bits >> 11) * 0x1.0p-53 >= train_fraction_;
  }

 private:
  double train_fraction_;
  RandomSource source_;
};

Vocabularies vocabularies_of(const Pairs& pairs, const TokenOptions& options, bool shared,
                             const Vocabularies& given) {
  TokenRules rules = options.rules;
  rules.newline = Newline::line;
  const auto of = [&](const std::string& role, std::span<const PairSide> sides) {
    const Vocabulary* const known = given_vocabulary(given, role, rules);
    if (known != nullptr) return *known;
    const std::string how =
        fmt::format("pairs {} {} {} {} {}", static_cast<int>(sides.front().part), sides.size(),
                    role, static_cast<int>(rules.kind), identity(options.limits));
    return pairs.cache.vocabulary(how, [&] {
      VocabularyCounter counter(rules);
      const auto take = [&](std::int64_t, std::string_view) -> TokenSink& { return counter; };
      for (const PairSide& side : sides) read_side(side, rules, {.begin = take});
      return counter.vocabulary(options.limits);
    });
  };
  const std::span<const PairSide> sides(pairs.sides);
  Vocabularies result;
  result.add("token", of("token", shared ? sides : sides.last(1)));
  result.add("source", shared ? result["token"] : of("source", sides.first(1)));
  return result;
}

struct Made {
  std::vector<Split> splits;  ///< one, or with a choice two
  std::vector<std::string> notices;
};

/// Writes the columns of pairs.
class Writing {
 public:
  Writing(const Pairs& pairs, const Vocabularies& vocabularies, std::string how,
          const Choice* choice)
      : pairs_(pairs),
        vocabularies_(vocabularies),
        how_(std::move(how)),
        choice_(choice),
        splits_(choice == nullptr ? 1 : 2) {}

  Made made() {
    Made result{.splits = kept(), .notices = {}};
    if (!result.splits.empty()) {
      const bool of_pairs = pairs_.sides.back().part == PairSide::Part::target;
      const std::string notice = of_pairs ? pairs_.cache.notice(kNotice) : "";
      if (!notice.empty()) result.notices.push_back(notice);
      return result;
    }
    std::vector<PairCounts> counts;
    for (const PairSide& side : pairs_.sides) counts.push_back(read(side));
    pairs_.cache.expect_unchanged();
    const LinePlace &first = counts.front().last, &last = counts.back().last;
    if (first.line != last.line) {
      throw FormatError(fmt::format("{} and {} have {} and {} lines, expected as many in both",
                                    first.name, last.name, first.line, last.line));
    }
    if (const std::int64_t further = counts.back().further; further > 0) {
      result.notices.push_back(
          fmt::format("{}: {} of {} lines have more than two columns; those after the second are "
                      "not read",
                      last.name, further, last.line));
      pairs_.cache.keep_notice(kNotice, result.notices.back());
    }
    result.splits.resize(splits_);
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      Column& column = columns_[i];
      result.splits[i % splits_].columns.push_back(
          {column.name, whole(column.writer->finish(column.characters), pairs_.cache.name())});
    }
    return result;
  }

 private:
  struct Column {
    std::string name;
    std::unique_ptr<TokenWriter> writer;
    std::int64_t characters = 0;
  };
  std::string name(const PairSide& side, std::size_t split) const {
    return fmt::format("pairs {} {} {} {} {:016x}", how_, split, side.column,
                       static_cast<int>(side.part), vocabularies_[side.column].fingerprint());
  }
  /// Nothing unless all are kept.
  std::vector<Split> kept() const {
    std::vector<Split> splits(splits_);
    for (const PairSide& side : pairs_.sides) {
      for (std::size_t i = 0; i < splits_; ++i) {
        auto store = pairs_.cache.tokens(name(side, i), vocabularies_[side.column]);
        if (store == nullptr) return {};
        splits[i].columns.push_back({side.column, whole(std::move(store), pairs_.cache.name())});
      }
    }
    return splits;
  }
  PairCounts read(const PairSide& side) {
    const Vocabulary& vocabulary = vocabularies_[side.column];
    const std::size_t first = columns_.size();
    for (std::size_t i = 0; i < splits_; ++i) {
      columns_.push_back({side.column, pairs_.cache.writer(name(side, i), vocabulary)});
    }
    Column* column = nullptr;  // that the text goes to
    const auto begin = [&](std::int64_t number, std::string_view text) -> TokenSink& {
      if (first == 0) chosen_.push_back(choice_ != nullptr && (*choice_)(text));
      // A second file may have more lines, which is found out at its end.
      const bool chosen = number < std::ssize(chosen_) && chosen_[static_cast<std::size_t>(number)];
      column = &columns_[first + (chosen ? 1 : 0)];
      return *column->writer;
    };
    const auto end = [&](std::int64_t characters) { column->characters += characters; };
    return read_side(side, vocabulary.rules(), {.begin = begin, .end = end});
  }

  const Pairs& pairs_;
  const Vocabularies& vocabularies_;
  std::string how_;
  const Choice* choice_;
  std::size_t splits_;
  std::vector<bool> chosen_;     ///< of each pair: it is for the second split
  std::vector<Column> columns_;  ///< side by side, of each the splits
};

/// The texts that three keys name, of data to train on or to validate on. Nothing if none does.
std::optional<PairTexts> texts_at(const std::string& key, const std::filesystem::path& text,
                                  const std::filesystem::path& source,
                                  const std::filesystem::path& target) {
  const std::string prefix = key == "data.text" ? "data." : key + "_";
  expect_there(key.c_str(), text);
  expect_there((prefix + "source").c_str(), source);
  expect_there((prefix + "target").c_str(), target);
  if (!text.empty() && !(source.empty() && target.empty())) {
    throw ConfigError(
        fmt::format("{} and {}{} are both given, expected either a file of pairs or two files", key,
                    prefix, source.empty() ? "target" : "source"));
  }
  if (source.empty() != target.empty()) {
    throw ConfigError(fmt::format("{0}{1} is given without {0}{2}, expected both", prefix,
                                  source.empty() ? "target" : "source",
                                  source.empty() ? "source" : "target"));
  }
  if (!text.empty()) return PairTexts{.sources = text.string()};
  if (source.empty()) return std::nullopt;
  return PairTexts{.sources = source.string(), .targets = target.string()};
}

void take(Corpus& corpus, std::vector<std::string> notices) {
  corpus.notices.insert(corpus.notices.end(), notices.begin(), notices.end());
}

Corpus evaluated(const Pairs& pairs, const Vocabularies& vocabularies) {
  Made made = Writing(pairs, vocabularies, "all", nullptr).made();
  return {.vocabularies = vocabularies,
          .validation = std::move(made.splits.front()),
          .notices = std::move(made.notices),
          .lines = true};
}

}  // namespace

bool PairsData::has_validation() const {
  return !(validation.empty() && validation_source.empty() && validation_target.empty());
}

void PairsData::describe(OptionSection& section) {
  section.add("text", text, "a file of lines source<TAB>target").may_change();
  section.add("source", source, "a file of sources, a text a line, instead of text").may_change();
  section.add("target", target, "the file of their targets, line by line").may_change();
  section.add("validation", validation, "as text, to evaluate on instead of a part of the pairs")
      .may_change();
  section.add("validation_source", validation_source, "as source, to evaluate on").may_change();
  section.add("validation_target", validation_target, "as target, to evaluate on").may_change();
  const auto divides = [this] { return !has_validation(); };
  section
      .add("train_fraction", train_fraction,
           "of the source texts, chosen by their hash; the rest is for validation",
           {.least = 0, .most = 1, .above_least = true})
      .when(divides, "data.validation is given");
  section
      .add("split_seed", split_seed, "of the choice of source texts for validation",
           {0, std::int64_t{1} << 40})
      .when(divides, "data.validation is given");
  tokens.describe_kind(section);
  tokens.describe_limits(section, vocabulary_from);
  section.add("shared_vocabulary", shared_vocabulary,
              "one vocabulary, counted over sources and targets, for both");
}

Corpus PairsData::open(const std::string& cache, const Vocabularies& given) const {
  const auto train = texts_at("data.text", text, source, target);
  if (!train) {
    throw ConfigError(
        "data.text is not given, expected a file of pairs, or two: data.source and data.target");
  }
  tokens.expect_model(given);
  return corpus(*train,
                texts_at("data.validation", validation, validation_source, validation_target),
                cache, given);
}

Corpus PairsData::corpus(const PairTexts& train, const std::optional<PairTexts>& validation_texts,
                         const std::string& cache, const Vocabularies& given) const {
  expect_train_fraction(train_fraction);
  const Pairs pairs(train, cache);
  Corpus corpus{.vocabularies = vocabularies_of(pairs, tokens, shared_vocabulary, given),
                .lines = true};
  const bool divided = !validation_texts && train_fraction < 1;
  const Choice choice(train_fraction, static_cast<std::uint64_t>(split_seed));
  Made made = Writing(pairs, corpus.vocabularies,
                      divided ? fmt::format("{} {}", train_fraction, split_seed) : "all",
                      divided ? &choice : nullptr)
                  .made();
  corpus.train = std::move(made.splits.front());
  take(corpus, std::move(made.notices));
  if (corpus.train["token"].count == 0) {
    throw FormatError(
        fmt::format("{}: all pairs are for validation, expected some to train on: a larger "
                    "data.train_fraction or another data.split_seed",
                    pairs.cache.name()));
  }
  if (divided && made.splits.back()["token"].count > 0) {
    corpus.validation = std::move(made.splits.back());
  } else if (validation_texts) {
    Corpus other = evaluated(Pairs(*validation_texts, cache), corpus.vocabularies);
    corpus.validation = std::move(other.validation);
    take(corpus, std::move(other.notices));
  }
  return corpus;
}

Corpus PairsData::evaluation(const Text& other, const Vocabularies& vocabularies,
                             const std::string& cache) const {
  return evaluated(Pairs(PairTexts{.sources = other}, cache), vocabularies);
}

Corpus PairsData::inputs(const Text& other, const Vocabularies& vocabularies,
                         const std::string& cache) const {
  return evaluated(Pairs(other, cache), vocabularies);
}

}  // namespace carousel
