#include "engine/text/vocabulary_counter.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/common/check.h"

namespace carousel {

std::string identity(const VocabularyLimits& limits) {
  const SubwordOptions& subwords = limits.subwords;
  std::string model;
  if (!subwords.file.empty()) model = Subwords::read(subwords.file.string()).model();
  if (!limits.byte_bpe.empty()) {
    const BytePairModel read = BytePairModel::read(limits.byte_bpe);
    for (const std::string& token : read.tokens) model += fmt::format("{} {}", token.size(), token);
    for (const auto& [left, right] : read.merges) model += fmt::format(" {} {}", left, right);
  }
  return fmt::format("{} {} {} {} {:016x}", limits.minimum_count, limits.maximum_size,
                     static_cast<int>(subwords.kind), subwords.size, fnv1a(model));
}

VocabularyCounter::VocabularyCounter(const TokenRules& rules) : rules_(rules) {}

bool VocabularyCounter::token(std::string_view text) {
  if (rules_.kind == TokenKind::sentencepiece && text != "\n") {
    texts_.emplace_back(text);
  } else if (text.size() == 1) {
    ++byte_counts_[static_cast<unsigned char>(text[0])];
  } else if (const auto found = counts_.find(text); found != counts_.end()) {
    ++found->second;
  } else {
    counts_.emplace(text, 1);
  }
  return true;
}

Vocabulary VocabularyCounter::subword_vocabulary(const SubwordOptions& options) const {
  if (texts_.empty()) throw FormatError("vocabulary: the text has no tokens");
  Vocabulary result(rules_);
  result.take(options.file.empty() ? Subwords::learn(texts_, options)
                                   : Subwords::read(options.file.string()));
  const auto count = [&](std::int32_t id, std::int64_t more) {
    if (id >= 0) result.counts_[static_cast<std::size_t>(id)] += more;
  };
  for (const std::string& text : texts_) {
    for (const std::int32_t id : result.pieces(text)) count(id, 1);
  }
  count(result.id("\n"), byte_counts_['\n']);
  count_line_ends(result);
  return result;
}

Vocabulary VocabularyCounter::byte_pair_vocabulary(const std::filesystem::path& folder) const {
  if (folder.empty()) {
    throw ConfigError(
        "data.tokens is byte_bpe, and data.byte_bpe is not set, expected a folder that has "
        "vocab.json and merges.txt");
  }
  Vocabulary result(rules_);
  result.take(BytePairModel::read(folder));
  std::int64_t words = 0;
  const auto count = [&](std::string_view word, std::int64_t more) {
    words += more;
    for (const std::int32_t id : result.pieces(word)) {
      result.counts_[static_cast<std::size_t>(id)] += more;
    }
  };
  for (const auto& [word, times] : counts_) count(word, times);
  for (std::size_t byte = 0; byte < byte_counts_.size(); ++byte) {
    const char letter = static_cast<char>(byte);
    if (byte_counts_[byte] > 0) count({&letter, 1}, byte_counts_[byte]);
  }
  if (words == 0) throw FormatError("vocabulary: the text has no tokens");
  count_line_ends(result);
  return result;
}

void VocabularyCounter::count_line_ends(Vocabulary& vocabulary) const {
  const auto count = [&](std::int32_t id, std::int64_t more) {
    if (id >= 0) vocabulary.counts_[static_cast<std::size_t>(id)] += more;
  };
  count(vocabulary.begin_, lines_);
  count(vocabulary.end_, ends_);
}

Vocabulary VocabularyCounter::vocabulary(const VocabularyLimits& limits) const {
  if (rules_.kind == TokenKind::sentencepiece) return subword_vocabulary(limits.subwords);
  if (rules_.kind == TokenKind::byte_bpe) return byte_pair_vocabulary(limits.byte_bpe);
  Vocabulary result(rules_);
  const std::int64_t room = limits.maximum_size - result.size();
  if (rules_.kind == TokenKind::byte && (limits.minimum_count > 1 || limits.maximum_size != 0)) {
    throw ConfigError(
        "data.tokens is byte, of which there are always 256: data.minimum_count and "
        "data.maximum_vocabulary are for characters and words");
  }
  if (limits.maximum_size != 0 && room <= 0) {
    throw ConfigError(
        fmt::format("data.maximum_vocabulary is {}, expected more than the {} special tokens, or 0 "
                    "for no limit",
                    limits.maximum_size, result.size()));
  }
  using Entry = std::pair<std::string_view, std::int64_t>;
  std::vector<Entry> entries(counts_.begin(), counts_.end());
  std::array<char, 256> letters{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    letters[byte] = static_cast<char>(byte);
    if (byte_counts_[byte] > 0) {
      entries.emplace_back(std::string_view(&letters[byte], 1), byte_counts_[byte]);
    }
  }
  if (entries.empty()) throw FormatError("vocabulary: the text has no tokens");
  const bool by_count = rules_.kind != TokenKind::line;
  std::sort(entries.begin(), entries.end(), [by_count](const Entry& a, const Entry& b) {
    return by_count && a.second != b.second ? a.second > b.second : a.first < b.first;
  });

  std::int64_t left_out = 0;
  for (const auto& [token, count] : entries) {
    if (const std::int32_t known = result.id(token); known >= 0) {  // a byte, or a special's name
      result.counts_[static_cast<std::size_t>(known)] += count;
    } else if (count < limits.minimum_count ||
               (limits.maximum_size != 0 && result.size() == limits.maximum_size)) {
      left_out += count;
    } else {
      result.add(token, count);
    }
  }
  if (result.unknown_ >= 0) result.counts_[static_cast<std::size_t>(result.unknown_)] += left_out;
  count_line_ends(result);
  return result;
}

}  // namespace carousel
