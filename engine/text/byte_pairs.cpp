#include "engine/text/byte_pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <tuple>
#include <utility>

#include "engine/files/input_file.h"
#include "engine/text/gpt2_words.h"
#include "engine/text/hash.h"
#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr const char *kVocabularyFile = "vocab.json", *kMergesFile = "merges.txt";

std::uint64_t key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

std::string content(const std::filesystem::path& path) {
  const InputFile file(path.string());
  std::string text(file.size(), '\0');
  file.read(0, text.data(), text.size());
  return text;
}

/// Bytes that print stand for themselves in the files, the others in order for U+0100 and what follows.
bool prints(int byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD); }

std::unordered_map<char32_t, char> byte_symbols() {
  std::unordered_map<char32_t, char> symbols;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    symbols[prints(byte) ? static_cast<char32_t>(byte) : next++] = static_cast<char>(byte);
  }
  return symbols;
}

/// The bytes that a token in the files stands for; nothing if a character stands for none.
std::optional<std::string> bytes_of(std::string_view token) {
  static const std::unordered_map<char32_t, char> symbols = byte_symbols();
  std::string bytes;
  for (; !token.empty(); token.remove_prefix(utf8_sequence(token).bytes)) {
    const Utf8Sequence s = utf8_sequence(token);
    const auto found = symbols.find(s.code);
    if (s.status != Utf8Sequence::Status::whole || found == symbols.end()) return std::nullopt;
    bytes += found->second;
  }
  return bytes;
}

std::vector<std::string> read_tokens(const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(content(path), nullptr, /*allow_exceptions=*/false);
  const auto fail = [&](const std::string& what) {
    throw FormatError(fmt::format("{}: {}", path.string(), what));
  };
  if (!json.is_object() || json.empty()) fail("not a JSON object of tokens and their ids");
  std::vector<std::string> tokens(json.size());
  for (const auto& [token, id] : json.items()) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= tokens.size()) {
      fail(fmt::format("the id of '{}' is {}, expected 0 … {}", token, id.dump(),
                       tokens.size() - 1));
    }
    std::string& place = tokens[id.get<std::size_t>()];
    if (!place.empty()) fail(fmt::format("two tokens have the id {}", id.dump()));
    const auto bytes = bytes_of(token);
    if (!bytes || bytes->empty()) {
      fail(fmt::format("the token '{}' has a character that stands for no byte", token));
    }
    place = *bytes;
  }
  return tokens;
}

std::vector<BytePairModel::Merge> read_merges(const std::filesystem::path& path,
                                              const std::vector<std::string>& tokens) {
  const std::string text = content(path);
  TokenMap<std::int32_t> ids;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    ids.emplace(tokens[id], static_cast<std::int32_t>(id));
  }
  std::vector<BytePairModel::Merge> merges;
  int number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    ++number;
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const auto fail = [&](const std::string& what) {
      throw FormatError(fmt::format("{}: line {}: {}", path.string(), number, what));
    };
    const std::size_t blank = line.find(' ');
    if (blank == std::string_view::npos || line.find(' ', blank + 1) != std::string_view::npos) {
      fail(fmt::format("'{}' is not two parts of a token with a blank between them", line));
    }
    const auto id_of = [&](std::string_view part) {
      const auto bytes = bytes_of(part);
      const auto found = bytes ? ids.find(*bytes) : ids.end();
      if (found == ids.end()) {
        fail(fmt::format("'{}' is no token of {}", part, kVocabularyFile));
      }
      return found->second;
    };
    const std::int32_t left = id_of(line.substr(0, blank)), right = id_of(line.substr(blank + 1));
    id_of(fmt::format("{}{}", line.substr(0, blank), line.substr(blank + 1)));
    merges.push_back({left, right});
  }
  return merges;
}

/// The parts of a word while neighbours are merged: those that are left are linked.
struct Part {
  std::int32_t id, before, after;  ///< places; −1: none
};

/// A merge that was possible when it was found: the first is the earliest learnt, then the leftmost.
struct Candidate {
  std::int32_t rank, place, left, right, whole;
  bool operator>(const Candidate& other) const {
    return std::tuple(rank, place) > std::tuple(other.rank, other.place);
  }
};

}  // namespace

BytePairModel BytePairModel::read(const std::filesystem::path& folder) {
  BytePairModel model{.tokens = read_tokens(folder / kVocabularyFile), .merges = {}};
  model.merges = read_merges(folder / kMergesFile, model.tokens);
  try {
    BytePairs(model.tokens, model.merges);
  } catch (const FormatError& error) {
    throw FormatError(fmt::format("{}: {}", folder.string(), error.what()));
  }
  return model;
}

BytePairs::BytePairs(std::span<const std::string> tokens, std::vector<BytePairModel::Merge> merges)
    : merges_(std::move(merges)) {
  of_byte_.fill(-1);
  TokenMap<std::int32_t> ids;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    ids.emplace(tokens[i], id);
    if (tokens[i].size() == 1) of_byte_[static_cast<unsigned char>(tokens[i][0])] = id;
    if (tokens[i] == kEndOfText) end_of_text_ = id;
  }
  for (std::size_t byte = 0; byte < of_byte_.size(); ++byte) {
    if (of_byte_[byte] >= 0) continue;
    throw FormatError(fmt::format("there is no token for the byte {:02X}", byte));
  }
  for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
    const auto [left, right] = merges_[rank];
    const auto whole =
        ids.find(tokens[static_cast<std::size_t>(left)] + tokens[static_cast<std::size_t>(right)]);
    if (whole == ids.end()) {
      throw FormatError(fmt::format("merge {} makes no token", rank + 1));
    }
    products_.try_emplace(key(left, right),
                          Product{static_cast<std::int32_t>(rank), whole->second});
  }
}

const BytePairs::Product* BytePairs::product(std::int32_t left, std::int32_t right) const {
  const auto found = products_.find(key(left, right));
  return found == products_.end() ? nullptr : &found->second;
}

std::vector<std::int32_t> BytePairs::cut(std::string_view word) const {
  if (word == kEndOfText && end_of_text_ >= 0) return {end_of_text_};
  std::vector<Part> parts;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](std::int32_t place) {
    if (place < 0) return;
    const Part& part = parts[static_cast<std::size_t>(place)];
    if (part.after < 0) return;
    const std::int32_t right = parts[static_cast<std::size_t>(part.after)].id;
    if (const Product* const made = product(part.id, right)) {
      queue.push({made->rank, place, part.id, right, made->whole});
    }
  };
  const auto count = static_cast<std::int32_t>(word.size());
  for (std::int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<std::size_t>(i)]);
    parts.push_back({of_byte_[byte], i - 1, i + 1 < count ? i + 1 : -1});
  }
  for (std::int32_t i = 0; i < count; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate merge = queue.top();
    queue.pop();
    Part& left = parts[static_cast<std::size_t>(merge.place)];
    if (left.id != merge.left || left.after < 0) continue;  // one of the two is another by now
    Part& right = parts[static_cast<std::size_t>(left.after)];
    if (right.id != merge.right) continue;
    left.id = merge.whole;
    left.after = right.after;
    right.id = -1;
    if (left.after >= 0) parts[static_cast<std::size_t>(left.after)].before = merge.place;
    consider(merge.place);
    consider(left.before);
  }
  std::vector<std::int32_t> ids;
  for (const Part& part : parts) {
    if (part.id >= 0) ids.push_back(part.id);
  }
  return ids;
}

}  // namespace carousel
