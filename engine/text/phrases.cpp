#include "engine/text/phrases.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr TokenRules kWords{.kind = TokenKind::word, .newline = Newline::eos};

std::uint64_t pair_of(std::int32_t a, std::int32_t b) {
  return static_cast<std::uint64_t>(a) << 32U | static_cast<std::uint32_t>(b);
}

}  // namespace

class Phrases::WordCounter final : public TokenSink {
 public:
  explicit WordCounter(Phrases& phrases) : phrases_(phrases) {}
  bool token(std::string_view text) override {
    auto found = phrases_.vocabulary_.find(text);
    if (found == phrases_.vocabulary_.end()) {
      found = phrases_.vocabulary_.emplace(text, Word{}).first;
    }
    ++found->second.count;
    ++phrases_.words_;
    return true;
  }
  void begin_line() override {}
  void end_line() override {}

 private:
  Phrases& phrases_;
};

class Phrases::PairCounter final : public TokenSink {
 public:
  explicit PairCounter(const Phrases& phrases) : phrases_(phrases) {}
  bool token(std::string_view text) override {
    const std::int32_t id = phrases_.id(text);
    if (before_ >= 0 && id >= 0) ++counts[pair_of(before_, id)];
    before_ = id;
    return true;
  }
  void begin_line() override {}
  void end_line() override { before_ = -1; }

  std::unordered_map<std::uint64_t, std::int64_t> counts;

 private:
  const Phrases& phrases_;
  std::int32_t before_ = -1;
};

class Phrases::Joiner final : public TokenSink {
 public:
  Joiner(const Phrases& phrases, const Write& write) : phrases_(phrases), write_(write) {}
  bool token(std::string_view text) override {
    const std::int32_t id = phrases_.id(text);
    const bool joins = before_ >= 0 && id >= 0 && phrases_.phrases_.contains(pair_of(before_, id));
    if (!line_.empty()) line_ += joins ? '_' : ' ';
    line_ += text;
    joined += joins ? 1 : 0;
    before_ = joins ? -1 : id;
    return true;
  }
  void begin_line() override {}
  void end_line() override {
    line_ += '\n';
    write_(line_);
    line_.clear();
    before_ = -1;
  }

  std::int64_t joined = 0;

 private:
  const Phrases& phrases_;
  const Write& write_;
  std::string line_;
  std::int32_t before_ = -1;
};

Phrases::Phrases(const Text& text, const PhraseOptions& options) {
  if (options.discount < 0) {
    throw ConfigError(fmt::format("phrases: discount is {}, expected 0 or more", options.discount));
  }
  if (!(options.threshold >= 0) || !std::isfinite(options.threshold)) {
    throw ConfigError(
        fmt::format("phrases: threshold is {}, expected 0 or more", options.threshold));
  }
  WordCounter words(*this);
  tokenize(text, kWords, words);
  if (words_ == 0) {
    throw FormatError(fmt::format("{}: line 1, byte 0: the text has no words", text.name()));
  }
  // A pair is no more frequent than its words, and its score not above 0 unless it exceeds δ.
  std::vector<double> counts;
  for (auto& [word, known] : vocabulary_) {
    if (known.count <= options.discount || word == kUnknownText || word == kEndText) continue;
    known.id = static_cast<std::int32_t>(counts.size());
    counts.push_back(static_cast<double>(known.count));
  }
  PairCounter pairs(*this);
  tokenize(text, kWords, pairs);
  for (const auto& [pair, count] : pairs.counts) {
    const double a = counts[pair >> 32U], b = counts[pair & 0xFFFFFFFFU];
    const double score =
        static_cast<double>(count - options.discount) * static_cast<double>(words_) / (a * b);
    if (score > options.threshold) phrases_.emplace(pair, score);
  }
}

std::int32_t Phrases::id(std::string_view word) const {
  const auto found = vocabulary_.find(word);
  return found == vocabulary_.end() ? -1 : found->second.id;
}

double Phrases::score(std::string_view a, std::string_view b) const {
  const std::int32_t first = id(a), second = id(b);
  if (first < 0 || second < 0) return 0;
  const auto found = phrases_.find(pair_of(first, second));
  return found == phrases_.end() ? 0 : found->second;
}

std::int64_t Phrases::join(const Text& text, const Write& write) const {
  Joiner joiner(*this, write);
  tokenize(text, kWords, joiner);
  return joiner.joined;
}

}  // namespace carousel
