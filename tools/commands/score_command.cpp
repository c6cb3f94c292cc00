#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/run/trained_model.h"
#include "engine/text/line_encoder.h"
#include "engine/text/utf8.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/console/line_input.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

/// What is printed of a line.
struct ScoredLine {
  const LineIds& ids;
  const LineScore& score;
  const Vocabulary& vocabulary;

  std::int64_t unknown() const {
    return vocabulary.unknown() < 0 ? 0 : std::count(ids.begin(), ids.end(), vocabulary.unknown());
  }
  /// Calls f with each token of the text and its log-probability, if it has one.
  template <class F>
  void each(F&& f) const {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != vocabulary.begin()) f(vocabulary.token(ids[i]), score.tokens[i]);
    }
  }
};

std::string text_of(const ScoredLine& line, bool tokens) {
  const LineScore& score = line.score;
  const std::string perplexity =
      score.counted() == 0 ? "-" : fmt::format("{:.3f}", score.perplexity());
  std::string text = fmt::format("{:.4f}\t{}\t{}\t{}", score.log_probability(), score.counted(),
                                 perplexity, line.unknown());
  if (!tokens) return text;
  line.each([&](const std::string& token, const std::optional<double>& log_probability) {
    text += fmt::format("\t{}\t", escaped(token));
    text += log_probability ? fmt::format("{:.4f}", *log_probability) : "-";
  });
  return text;
}

std::string json_of(const ScoredLine& line, bool tokens) {
  using Json = nlohmann::json;
  const LineScore& score = line.score;
  Json json{{"log_probability", score.log_probability()},
            {"tokens", score.counted()},
            {"perplexity", score.counted() == 0 ? Json() : Json(score.perplexity())},
            {"unknown_tokens", line.unknown()}};
  if (!tokens) return json.dump();
  json["scores"] = Json::array();
  // Bytes alone need not be UTF-8, which JSON is.
  const TokenKind kind = line.vocabulary.rules().kind;
  const bool bytes = kind == TokenKind::byte || kind == TokenKind::byte_bpe;
  line.each([&](const std::string& token, const std::optional<double>& log_probability) {
    json["scores"].push_back(
        {{"token", bytes ? escaped(token) : token},
         {"log_probability", log_probability ? Json(*log_probability) : Json()}});
  });
  return json.dump();
}

}  // namespace

int score_command(const ScoreArguments& arguments, const CommonArguments& common) {
  TrainedModel trained(arguments.run, model_registry(), with_stride(common, arguments.stride),
                       arguments.checkpoint);
  expect_ability(trained.config().entry->scores, "score", *trained.config().entry);
  const Vocabulary& vocabulary = trained.vocabularies()["token"];
  LineInput input(arguments.data);
  LineEncoder encoder(vocabulary, input.name(), LineEncoder::End::closed);
  bool told = false;
  for (auto lines = input.next(); !lines.empty(); lines = input.next()) {
    std::vector<LineIds> ids;
    for (const std::string& line : lines) ids.push_back(encoder.next(line));
    if (!std::exchange(told, true)) {
      tell_checkpoint("score", trained);
      if (const std::string how = windows_text(trained); !how.empty()) {
        talk(fmt::format("score: lines are read{}\n", how));
      }
    }
    const std::vector<LineScore> scores = trained.score(ids);
    std::string text;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const ScoredLine line{ids[i], scores[i], vocabulary};
      text += common.json ? json_of(line, arguments.tokens) : text_of(line, arguments.tokens);
      text += '\n';
    }
    write_output(text);  // at once, for a program that waits for the answer to its lines
  }
  return 0;
}

}  // namespace carousel
