#include "engine/text/vocabularies.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::string_view kKey = "carousel.vocabulary";
constexpr std::string_view kMainRole = "token";

std::string key(std::string_view role) {
  return role == kMainRole ? std::string(kKey) : fmt::format("{}.{}", kKey, role);
}

}  // namespace

void Vocabularies::add(const std::string& role, Vocabulary vocabulary) {
  by_role_.insert_or_assign(role, std::move(vocabulary));
}

const Vocabulary& Vocabularies::operator[](const std::string& role) const {
  const auto found = by_role_.find(role);
  if (found != by_role_.end()) return found->second;
  std::vector<std::string> roles;
  for (const auto& [name, vocabulary] : by_role_) roles.push_back(name);
  throw ConfigError(fmt::format("the data has no vocabulary for '{}', expected one of: {}", role,
                                fmt::join(roles, ", ")));
}

void Vocabularies::write(Metadata& metadata) const {
  for (const auto& [role, vocabulary] : by_role_) metadata[key(role)] = vocabulary.text();
}

Vocabularies Vocabularies::read(const Metadata& metadata, const std::string& file) {
  Vocabularies result;
  for (const auto& [name, text] : metadata) {
    if (name == kKey) {
      result.add(std::string(kMainRole), Vocabulary::parse(text, file));
    } else if (name.starts_with(std::string(kKey) + ".")) {
      result.add(name.substr(kKey.size() + 1), Vocabulary::parse(text, file));
    }
  }
  return result;
}

void Vocabularies::expect_same_tokens(const Vocabularies& expected, const std::string& name) const {
  for (const auto& [role, ours] : by_role_) {
    if (!expected.contains(role)) continue;
    const Vocabulary& theirs = expected[role];
    if (ours.size() != theirs.size()) {
      throw FormatError(fmt::format("{}: its vocabulary has {} {}s, expected the {} of data.text",
                                    name, ours.size(), role, theirs.size()));
    }
    for (std::int32_t id = 0; id < ours.size(); ++id) {
      if (ours.token(id) == theirs.token(id)) continue;
      throw FormatError(
          fmt::format("{}: {} {} of its vocabulary is '{}', expected '{}' as in data.text", name,
                      role, id, escaped(ours.token(id)), escaped(theirs.token(id))));
    }
    if (ours.byte_pairs() != nullptr && theirs.byte_pairs() != nullptr &&
        ours.byte_pairs()->merges() != theirs.byte_pairs()->merges()) {
      throw FormatError(fmt::format(
          "{}: its byte-level BPE merges {}s in another order, expected that of data.text", name,
          role));
    }
    if (ours.subwords() != nullptr && theirs.subwords() != nullptr &&
        ours.subwords()->model() != theirs.subwords()->model()) {
      throw FormatError(fmt::format(
          "{}: its model of SentencePiece cuts {}s by other rules, expected those of data.text",
          name, role));
    }
  }
}

}  // namespace carousel
