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
  section.add(
      "tokens", rules.kind, "what a token is",
      {{"byte", TokenKind::byte}, {"char", TokenKind::character}, {"word", TokenKind::word}});
}

void TokenOptions::describe_limits(OptionSection& section,
                                   const std::filesystem::path& vocabulary) {
  constexpr std::int64_t kMany = std::int64_t{1} << 40;
  const auto counting = [&vocabulary] { return vocabulary.empty(); };
  section.add("minimum_count", limits.minimum_count, "rarer tokens become <unk>", {1, kMany})
      .when(counting, "data.vocabulary is given");
  section
      .add("maximum_vocabulary", limits.maximum_size, "at most so many tokens; 0: no limit",
           {0, kMany})
      .when(counting, "data.vocabulary is given");
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
  if (vocabulary.rules() == rules) return &vocabulary;
  throw ConfigError(fmt::format("data.vocabulary cuts a text into '{}', expected '{}'",
                                text(vocabulary.rules()), text(rules)));
}

void expect_train_fraction(double train_fraction) {
  if (train_fraction > 0 && train_fraction <= 1) return;
  throw ConfigError(
      fmt::format("data: train_fraction is {}, expected more than 0, at most 1", train_fraction));
}

}  // namespace carousel
