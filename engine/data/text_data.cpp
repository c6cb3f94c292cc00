#include "engine/data/text_data.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::int64_t kMany = std::int64_t{1} << 40;

// The first place from `cut` on where the text may be divided.
std::int64_t next_boundary(const TokenRange& tokens, const Vocabulary& vocabulary,
                           std::int64_t cut) {
  const auto divides = [&](std::int32_t id) {  // a token that may not stand first
    if (vocabulary.rules().newline == Newline::line) return id != vocabulary.begin();
    const bool is_byte = vocabulary.rules().kind == TokenKind::byte && id < 256;
    return is_byte && (static_cast<unsigned>(id) & 0xC0U) == 0x80U;
  };
  while (cut < tokens.count && divides(tokens[cut])) ++cut;
  return cut;
}

Split split_of(TokenRange tokens) { return {.columns = {{"token", std::move(tokens)}}}; }

// One token alone predicts nothing.
Split validation_of(TokenRange tokens) {
  return tokens.count > 1 ? split_of(std::move(tokens)) : Split{};
}

}  // namespace

void TextData::describe(OptionSection& section) {
  section.add("text", text, "the UTF-8 text to learn").require().may_change();
  section
      .add("validation", validation,
           "another text to evaluate on, instead of the last part of the first")
      .may_change();
  section
      .add("train_fraction", train_fraction, "of the text; the rest is for validation",
           {.least = 0, .most = 1, .above_least = true})
      .when([this] { return validation.empty(); }, "data.validation is given");
  tokens.describe_kind(section);
  section.add("unit", unit, "contiguous windows, or a sentence a line",
              {{"stream", Unit::stream}, {"line", Unit::line}});
  section
      .add("newline", newline,
           "a character like others, or the token <eos>; auto: eos between words",
           {{"auto", LineEnds::automatic},
            {"text", LineEnds::text},
            {"eos", LineEnds::eos},
            {"line", LineEnds::line}})
      .when([this] { return !lines() || newline == LineEnds::line; }, "the data is lines");
  tokens.describe_limits(section, vocabulary_from);
  section.add("document_end", document_end, "a token after which the state is reset; empty: none");
  section.add("answer_after", answer_after,
              "of a line, the loss counts what follows this token; empty: the whole line");
  section
      .add("device_bytes", device_bytes, "tokens live on the device when they fit in this",
           {0, kMany})
      .may_change();
}

TokenRules TextData::rules() const {
  TokenRules result = tokens.rules;
  const bool words = result.kind == TokenKind::word;
  result.newline = lines() || newline == LineEnds::line ? Newline::line
                   : newline == LineEnds::eos || (newline == LineEnds::automatic && words)
                       ? Newline::eos
                       : Newline::text;
  return result;
}

void TextData::complete() {
  if (newline != LineEnds::automatic) return;
  switch (rules().newline) {
    case Newline::text:
      newline = LineEnds::text;
      break;
    case Newline::eos:
      newline = LineEnds::eos;
      break;
    case Newline::line:
      newline = LineEnds::line;
      break;
  }
}

void TextData::mark(Corpus& corpus, const Vocabularies& vocabularies,
                    const std::string& name) const {
  const auto id = [&](const char* key, const std::string& token) {
    const std::int32_t found = token.empty() ? -1 : vocabularies["token"].id(token);
    if (token.empty() || found >= 0) return found;
    throw ConfigError(fmt::format("data.{} is '{}', which is no token of {}", key, token, name));
  };
  corpus.document_end = id("document_end", document_end);
  corpus.answer_after = id("answer_after", answer_after);
  if (corpus.answer_after >= 0 && unit != Unit::line) {
    throw ConfigError("data.answer_after is for data.unit = \"line\"");
  }
}

Corpus TextData::without_tokens(Vocabularies vocabularies, const std::string& name) const {
  Corpus corpus{.vocabularies = std::move(vocabularies),
                .lines = unit == Unit::line,
                .device_bytes = static_cast<std::size_t>(device_bytes)};
  mark(corpus, corpus.vocabularies, name);
  return corpus;
}

Corpus TextData::open(const std::string& cache, const Vocabularies& given) const {
  expect_there("data.text", text);
  expect_there("data.validation", validation);
  tokens.expect_model(given);
  std::vector<Text> also;
  if (!validation.empty()) also.emplace_back(validation.string());
  return corpus({text.string()}, also, cache, given);
}

Corpus TextData::corpus(const std::vector<Text>& train, const std::vector<Text>& validation_texts,
                        const std::string& cache, const Vocabularies& given) const {
  expect_train_fraction(train_fraction);
  Vocabularies vocabularies;
  const Vocabulary* const known = given_vocabulary(given, "token", rules());
  vocabularies.add("token", known != nullptr
                                ? *known
                                : counted_vocabulary(train, rules(), tokens.limits, cache));
  Corpus corpus = without_tokens(std::move(vocabularies), train.front().name());
  const Vocabulary& vocabulary = corpus.vocabularies["token"];
  const TokenRange all = tokenised(train, vocabulary, cache);
  TokenRange part = all;
  if (validation_texts.empty()) {
    const auto share = std::floor(train_fraction * static_cast<double>(all.count));
    part.count = next_boundary(all, vocabulary, static_cast<std::int64_t>(share));
    corpus.validation = validation_of({all.store, part.count, all.count - part.count, all.name});
  } else {
    corpus.validation = validation_of(tokenised(validation_texts, vocabulary, cache));
  }
  corpus.train = split_of(std::move(part));
  return corpus;
}

Corpus TextData::evaluation(const Text& other, const Vocabularies& vocabularies,
                            const std::string& cache) const {
  Corpus corpus = without_tokens(vocabularies, other.name());
  corpus.validation = split_of(tokenised({other}, corpus.vocabularies["token"], cache));
  return corpus;
}

}  // namespace carousel
