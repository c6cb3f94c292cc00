#include "engine/data/data_kinds.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <vector>

#include "engine/config/nearest.h"
#include "engine/data/labelled_data.h"
#include "engine/data/pairs_data.h"
#include "engine/data/text_data.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

template <class Config>
std::unique_ptr<DataConfig> make_config() {
  return std::make_unique<Config>();
}

constexpr const char* kText[] = {"token"};
constexpr const char* kLabelled[] = {"token", "label"};
constexpr const char* kPairs[] = {"source", "token"};

constexpr DataKind kKinds[] = {
    {"labelled", "texts with a label each", kLabelled, make_config<LabelledData>},
    {"pairs", "texts with another for each, such as its translation", kPairs,
     make_config<PairsData>},
    {"text", "a text, as one stream or line by line", kText, make_config<TextData>},
};

bool has(const DataKind& kind, std::string_view column) {
  return std::find(kind.columns.begin(), kind.columns.end(), column) != kind.columns.end();
}

}  // namespace

std::span<const DataKind> data_kinds() { return kKinds; }

const DataKind& data_kind(const std::string& kind) {
  std::vector<std::string> kinds;
  for (const DataKind& known : kKinds) {
    if (kind == known.kind) return known;
    kinds.emplace_back(known.kind);
  }
  const std::string guess = nearest(kind, kinds);
  throw ConfigError(fmt::format("data.kind is '{}', expected one of: {}{}", kind,
                                fmt::join(kinds, ", "),
                                guess.empty() ? "" : "; did you mean '" + guess + "'?"));
}

void expect_columns(const DataKind& kind, std::span<const char* const> wanted,
                    const std::string& reader) {
  const auto has_all = [&](const DataKind& candidate) {
    return std::all_of(wanted.begin(), wanted.end(),
                       [&](const char* column) { return has(candidate, column); });
  };
  if (has_all(kind)) return;
  std::vector<std::string> able;
  for (const DataKind& known : kKinds) {
    if (has_all(known)) able.emplace_back(known.kind);
  }
  throw ConfigError(
      fmt::format("data.kind is {}, which gives {}, and {} reads {}; expected data.kind: {}",
                  kind.kind, fmt::join(kind.columns, ", "), reader, fmt::join(wanted, ", "),
                  able.empty() ? "none has them all" : fmt::format("{}", fmt::join(able, ", "))));
}

void TokenOptions::describe_kind(OptionSection& section) {
  section.add("tokens", rules.kind, "what a token is",
              {{"byte", TokenKind::byte},
               {"char", TokenKind::character},
               {"word", TokenKind::word},
               {"sentencepiece", TokenKind::sentencepiece},
               {"byte_bpe", TokenKind::byte_bpe}});
}

void TokenOptions::describe_limits(OptionSection& section,
                                   const std::filesystem::path& vocabulary) {
  constexpr std::int64_t kMany = std::int64_t{1} << 40;
  const auto of_pieces = [this, &vocabulary] {
    return vocabulary.empty() && rules.kind == TokenKind::sentencepiece;
  };
  const auto of_byte_pairs = [this, &vocabulary] {
    return vocabulary.empty() && rules.kind == TokenKind::byte_bpe;
  };
  const auto counting = [&vocabulary, of_pieces, of_byte_pairs] {
    return vocabulary.empty() && !of_pieces() && !of_byte_pairs();
  };
  const auto learnt = [this, of_pieces] { return of_pieces() && limits.subwords.file.empty(); };
  const std::string why_no_counting =
      "data.vocabulary is given, or data.tokens is sentencepiece or byte_bpe";
  section.add("minimum_count", limits.minimum_count, "rarer tokens become <unk>", {1, kMany})
      .when(counting, why_no_counting);
  section
      .add("maximum_vocabulary", limits.maximum_size, "at most so many tokens; 0: no limit",
           {0, kMany})
      .when(counting, why_no_counting);
  section
      .add("sentencepiece", limits.subwords.file,
           "a model to cut the text with; empty: one is learnt from it")
      .when(of_pieces, "data.tokens is not sentencepiece, or data.vocabulary is given")
      .may_change();
  section.add("byte_bpe", limits.byte_bpe, "the folder of vocab.json and merges.txt, as of GPT-2")
      .when(of_byte_pairs, "data.tokens is not byte_bpe, or data.vocabulary is given")
      .may_change();
  section
      .add("sentencepiece_kind", limits.subwords.kind, "how the model is learnt",
           {{"unigram", SubwordOptions::Kind::unigram}, {"bpe", SubwordOptions::Kind::bpe}})
      .when(learnt, "no model of SentencePiece is learnt");
  section.add("vocabulary_size", limits.subwords.size, "of the model that is learnt", {4, 1 << 20})
      .when(learnt, "no model of SentencePiece is learnt");
}

void TokenOptions::expect_model(const Vocabularies& given) const {
  if (given.contains("token")) return;
  if (rules.kind == TokenKind::sentencepiece) {
    expect_there("data.sentencepiece", limits.subwords.file);
  }
  if (rules.kind == TokenKind::byte_bpe) expect_there("data.byte_bpe", limits.byte_bpe);
}

void expect_there(const char* key, const std::filesystem::path& path) {
  std::error_code error;
  if (path.empty() || std::filesystem::exists(path, error)) return;
  errno = error ? error.value() : ENOENT;
  throw_io_error(fmt::format("{}: opening", key), path.string());
}

const Vocabulary* given_vocabulary(const Vocabularies& given, const std::string& role,
                                   const TokenRules& rules) {
  if (!given.contains(role)) return nullptr;
  const Vocabulary& vocabulary = given[role];
  TokenRules expected = rules;
  expected.unknown = rules.unknown && may_be_unknown(rules.kind);
  if (vocabulary.rules() == expected) return &vocabulary;
  throw ConfigError(fmt::format("data.vocabulary cuts a text into '{}', expected '{}'",
                                text(vocabulary.rules()), text(expected)));
}

void expect_train_fraction(double train_fraction) {
  if (train_fraction > 0 && train_fraction <= 1) return;
  throw ConfigError(
      fmt::format("data: train_fraction is {}, expected more than 0, at most 1", train_fraction));
}

}  // namespace carousel
