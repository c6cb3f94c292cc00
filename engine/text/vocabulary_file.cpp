// The human-readable form of a vocabulary, which is also what a checkpoint embeds.
#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <limits>
#include <optional>

#include "engine/files/input_file.h"
#include "engine/text/utf8.h"
#include "engine/text/vocabulary.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::array<std::string_view, 3> kNewlines{"text", "eos", "line"};
constexpr std::string_view kVersion = "1";

std::string header(const TokenRules& rules, std::int64_t size) {
  return fmt::format("{}{} {} size={}", Vocabulary::kMagic, kVersion, text(rules), size);
}

std::optional<std::int64_t> number(std::string_view digits) {
  std::int64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (digits.empty() || stop != end || error != std::errc() || value < 0) return std::nullopt;
  return value;
}

// Reads a text line by line, and names the line in errors.
class Lines {
 public:
  Lines(std::string_view text, std::string name) : rest_(text), name_(std::move(name)) {}
  bool empty() const { return rest_.empty(); }
  [[noreturn]] void fail(const std::string& what) const {
    throw FormatError(fmt::format("{}: line {}: {}", name_, line_, what));
  }
  std::string_view next() {
    ++line_;
    const std::size_t end = rest_.find('\n');
    if (end == std::string_view::npos) {
      fail(rest_.empty() ? "the file ends before the last token"
                         : "the line has no end; the file was cut short");
    }
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return line;
  }

 private:
  std::string_view rest_;
  std::string name_;
  int line_ = 0;
};

// The rules that a header line states, and how many tokens follow. There are few possible headers,
// so they are compared and not parsed.
std::pair<TokenRules, std::int64_t> parse_header(Lines& lines) {
  const std::string_view line = lines.next();
  if (!line.starts_with(Vocabulary::kMagic)) lines.fail("not a Carousel vocabulary");
  const std::string_view version =
      line.substr(Vocabulary::kMagic.size(),
                  line.find(' ', Vocabulary::kMagic.size()) - Vocabulary::kMagic.size());
  if (version != kVersion) {
    lines.fail(fmt::format("version '{}', expected '{}'", version, kVersion));
  }
  const std::size_t equals = line.rfind('=');
  const auto size =
      number(equals == std::string_view::npos ? std::string_view() : line.substr(equals + 1));
  for (const auto kind : {TokenKind::byte, TokenKind::character, TokenKind::word, TokenKind::line,
                          TokenKind::sentencepiece, TokenKind::byte_bpe}) {
    for (const auto newline : {Newline::text, Newline::eos, Newline::line}) {
      for (const bool unknown : {false, true}) {
        const TokenRules rules{kind, newline, unknown};
        const bool possible = may_be_unknown(kind) || !unknown;
        if (size && possible && line == header(rules, *size)) return {rules, *size};
      }
    }
  }
  lines.fail(fmt::format("'{}' is not a header like '{}'", line, header(TokenRules{}, 66)));
}

// What is wrong with a token of this kind, or nothing.
const char* wrong(std::string_view token, TokenKind kind) {
  if (token.empty()) return "the token is empty";
  if (kind == TokenKind::byte_bpe) return nullptr;  // of any bytes
  for (std::string_view rest = token; !rest.empty();) {
    const Utf8Sequence s = utf8_sequence(rest);
    if (s.status != Utf8Sequence::Status::whole) return "the token is not UTF-8";
    if (kind == TokenKind::character && s.bytes != token.size()) {
      return "the token is more than a character";
    }
    if (kind == TokenKind::word && is_white_space(s.code)) return "the token has white space in it";
    if (kind == TokenKind::line && s.code == '\n') return "the token has a newline in it";
    rest.remove_prefix(s.bytes);
  }
  return nullptr;
}

std::string read_escaped(std::string_view text, const Lines& lines) {
  try {
    return unescaped(text);
  } catch (const FormatError& error) {
    lines.fail(error.what());
  }
}

// A token and its count.
std::pair<std::string, std::int64_t> parse_token(Lines& lines) {
  const std::string_view line = lines.next();
  const std::size_t tab = line.find('\t');
  const auto count = number(tab == std::string_view::npos ? "" : line.substr(tab + 1));
  if (!count) lines.fail(fmt::format("'{}' is not a token, a tab and a count", line));
  return {read_escaped(line.substr(0, tab), lines), *count};
}

// Of byte-level BPE, the tokens without the ends of lines, which come last.
std::vector<std::string> cut_tokens(const Vocabulary& vocabulary, const Lines& lines) {
  const Newline newline = vocabulary.rules().newline;
  const std::int64_t ends = newline == Newline::line ? 2 : newline == Newline::eos ? 1 : 0;
  if (vocabulary.size() < ends) lines.fail("the ends of lines are missing");
  std::vector<std::string> tokens;
  for (std::int32_t id = 0; id < vocabulary.size() - ends; ++id) {
    tokens.push_back(vocabulary.token(id));
  }
  return tokens;
}

// The merges up to the end of the text.
std::vector<BytePairModel::Merge> parse_merges(Lines& lines, const Vocabulary& vocabulary) {
  std::vector<BytePairModel::Merge> merges;
  while (!lines.empty()) {
    const std::string_view line = lines.next();
    const std::size_t first = line.find('\t'), second = line.find('\t', first + 1);
    if (!line.starts_with("merge\t") || second == std::string_view::npos) {
      lines.fail(fmt::format("'{}' is not 'merge', a tab, a token, a tab and a token", line));
    }
    const auto id_of = [&](std::string_view part) {
      const std::int32_t id = vocabulary.id(read_escaped(part, lines));
      if (id < 0) lines.fail(fmt::format("'{}' is no token", part));
      return id;
    };
    merges.push_back(
        {id_of(line.substr(first + 1, second - first - 1)), id_of(line.substr(second + 1))});
  }
  return merges;
}

}  // namespace

std::string text(const TokenRules& rules) {
  return fmt::format("{} newline={} unknown={}", name(rules.kind),
                     kNewlines[static_cast<std::size_t>(rules.newline)],
                     rules.unknown ? "yes" : "no");
}

std::string Vocabulary::text() const {
  std::string result = header(rules_, size()) + '\n';
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    result += fmt::format("{}\t{}\n", escaped(tokens_[i]), counts_[i]);
  }
  for (std::size_t i = 0; byte_pairs_ != nullptr && i < byte_pairs_->merges().size(); ++i) {
    const auto [left, right] = byte_pairs_->merges()[i];
    result += fmt::format("merge\t{}\t{}\n", escaped(token(left)), escaped(token(right)));
  }
  if (subwords_ != nullptr) result += fmt::format("model\t{}\n", base64(subwords_->model()));
  return result;
}

std::uint64_t Vocabulary::fingerprint() const { return fnv1a(text()); }

Vocabulary Vocabulary::parse(std::string_view text, const std::string& name) {
  Lines lines(text, name);
  const auto [rules, size] = parse_header(lines);
  Vocabulary result(rules);
  const auto fixed = static_cast<std::size_t>(result.size());
  if (size < result.size() || size > std::numeric_limits<std::int32_t>::max() ||
      (rules.kind == TokenKind::byte && size != result.size())) {
    lines.fail(fmt::format("size is {}, but {} tokens are fixed for this kind", size, fixed));
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
    const auto [token, count] = parse_token(lines);
    if (i < fixed) {
      if (token != result.tokens_[i]) {
        lines.fail(fmt::format("'{}', expected '{}' for this kind", escaped(token),
                               escaped(result.tokens_[i])));
      }
      result.counts_[i] = count;
      continue;
    }
    if (const char* fault = wrong(token, rules.kind)) lines.fail(fault);
    if (!result.add(token, count)) {
      lines.fail(fmt::format("'{}' is there twice", escaped(token)));
    }
  }
  if (rules.kind == TokenKind::byte_bpe) {
    Vocabulary whole(rules);
    const BytePairModel model{.tokens = cut_tokens(result, lines),
                              .merges = parse_merges(lines, result)};
    try {
      whole.take(model);
    } catch (const FormatError& error) {
      lines.fail(error.what());
    }
    if (whole.tokens_ != result.tokens_) lines.fail("the last tokens are not the ends of lines");
    whole.counts_ = std::move(result.counts_);
    result = std::move(whole);
  }
  if (rules.kind == TokenKind::sentencepiece) {
    const std::string_view line = lines.next();
    if (!line.starts_with("model\t")) lines.fail("not the model of SentencePiece");
    try {
      result.take(Subwords::parse(from_base64(line.substr(6)), "the model"));
    } catch (const FormatError& error) {
      lines.fail(error.what());
    }
    if (result.size() != size) {
      lines.fail(fmt::format("the model has {} tokens, expected {}", result.size(), size));
    }
  }
  if (!lines.empty())
    lines.fail(fmt::format("there is more text after the {} tokens of the header", size));
  return result;
}

void Vocabulary::write(const std::string& path) const {
  std::ofstream file(path, std::ios::binary);
  file << text();
  file.close();
  if (!file) throw_io_error("writing", path);
}

Vocabulary Vocabulary::read(const std::string& path) {
  const InputFile file(path);
  std::string text(file.size(), '\0');
  file.read(0, text.data(), text.size());
  return parse(text, path);
}

}  // namespace carousel
