#include "engine/vectors/questions.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/files/input_file.h"
#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

[[noreturn]] void refuse(const std::filesystem::path& file, int line, const std::string& what) {
  throw FormatError(fmt::format("{}: line {}: {}", file.string(), line, what));
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
}

/// Calls take(line, its number) for each line that is not empty, without the blanks around it.
template <class Take>
void each_line(const std::filesystem::path& path, const Take& take) {
  const InputFile file(path);
  std::string text(file.size(), '\0');
  file.read(0, text.data(), text.size());
  std::string_view rest = text;
  if (rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());
  for (int number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (!is_utf8(line)) refuse(path, number, "not UTF-8");
    if (const std::string_view content = trimmed(line); !content.empty()) take(content, number);
  }
}

/// The fields of a line: between single separators, or at ' ' between runs of blanks and tabs.
std::vector<std::string> fields_of(std::string_view line, char separator) {
  std::vector<std::string> fields;
  for (bool more = true; more;) {
    const std::size_t end =
        std::min(separator == ' ' ? line.find_first_of(" \t") : line.find(separator), line.size());
    fields.emplace_back(trimmed(line.substr(0, end)));
    more = end < line.size();
    line.remove_prefix(more ? end + 1 : end);
    if (separator == ' ') line = trimmed(line);
  }
  return fields;
}

std::optional<double> number(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

}  // namespace

std::vector<ScoredPair> read_scored_pairs(const std::filesystem::path& file) {
  std::vector<ScoredPair> pairs;
  bool first = true;
  each_line(file, [&](std::string_view line, int at) {
    if (line.front() == '#') return;
    const bool has_tab = line.find('\t') != std::string_view::npos;
    const bool has_comma = line.find(',') != std::string_view::npos;
    const std::vector<std::string> fields = fields_of(line, has_tab ? '\t' : has_comma ? ',' : ' ');
    const bool may_be_names = std::exchange(first, false);
    if (fields.size() != 3 || fields[0].empty() || fields[1].empty()) {
      refuse(file, at, fmt::format("'{}', expected two words and a number", line.substr(0, 60)));
    }
    const std::optional<double> score = number(fields[2]);
    if (!score && may_be_names) return;
    if (!score) refuse(file, at, fmt::format("'{}' is not a finite number", fields[2]));
    pairs.push_back({fields[0], fields[1], *score});
  });
  if (pairs.empty())
    throw FormatError(fmt::format("{}: there are no pairs of words", file.string()));
  return pairs;
}

std::vector<AnalogySection> read_analogies(const std::filesystem::path& file) {
  std::vector<AnalogySection> sections;
  std::size_t questions = 0;
  each_line(file, [&](std::string_view line, int at) {
    if (line.front() == ':') {
      sections.push_back({.name = std::string(trimmed(line.substr(1))), .questions = {}});
      return;
    }
    const std::vector<std::string> words = fields_of(line, ' ');
    if (words.size() != 4) {
      refuse(file, at, fmt::format("{} words, expected 4, or ': section'", words.size()));
    }
    if (sections.empty()) refuse(file, at, "a question before the first ': section'");
    sections.back().questions.push_back({words[0], words[1], words[2], words[3]});
    ++questions;
  });
  if (questions == 0) throw FormatError(fmt::format("{}: there are no questions", file.string()));
  return sections;
}

}  // namespace carousel
