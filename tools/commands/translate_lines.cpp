#include "tools/commands/translate_lines.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/model/translator.h"
#include "engine/run/translations.h"
#include "kernels/common/check.h"
#include "tools/commands/search_texts.h"
#include "tools/console/json_line.h"
#include "tools/console/line_input.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

using Json = nlohmann::ordered_json;

/// Tokens are drawn.
void add_sampling(const TranslationArguments& a, BeamOptions& options) {
  expect_one_of_each(
      {{a.beam.has_value(), "--beam", "--temperature, --top-k and --top-p", "tokens are drawn"},
       {a.best.has_value(), "--nbest", "--temperature, --top-k and --top-p",
        "one translation is drawn"}});
  const SamplingConfig none;
  options.sampling = {.temperature = a.temperature.value_or(none.temperature),
                      .top_k = a.top_k.value_or(none.top_k),
                      .top_p = a.top_p.value_or(none.top_p),
                      .seed = a.seed.value_or(none.seed)};
  expect_sampling(*options.sampling, "--beam 1");
  options.beam = 1;
}

BeamOptions options_of(const TranslationArguments& a, const Vocabulary& target) {
  BeamOptions options = beam_options(a, target);
  if (a.draws()) {
    add_sampling(a, options);
  } else if (a.seed) {
    throw ConfigError("--seed is for --temperature, --top-k and --top-p, and none is given");
  }
  options.coverage_penalty = a.coverage_penalty.value_or(options.coverage_penalty);
  if (a.tokens) {
    if (*a.tokens < 1) {
      throw ConfigError(fmt::format("--tokens is {}, expected 1 or more", *a.tokens));
    }
    options.longest_factor = 0;
    options.longest_constant = static_cast<double>(*a.tokens);
  }
  return options;
}

Json tokens_of(const Vocabulary& vocabulary, std::span<const std::int32_t> ids) {
  Json tokens = Json::array();
  for (const std::int32_t id : ids) tokens.push_back(vocabulary.token(id));
  return tokens;
}

/// A line that is translated: its text and what the model read of it.
struct Line {
  std::string text;
  LineIds ids;
};

std::string as_json(const Translations& translations, const Line& line,
                    const std::vector<Hypothesis>& found) {
  LineIds read = line.ids;
  std::erase(read, translations.source().begin());
  Json hypotheses = Json::array();
  for (const Hypothesis& each : found) {
    Json json{{"text", translations.text(each)},
              {"score", each.score},
              {"log_probability", each.log_probability},
              {"tokens", tokens_of(translations.target(), each.tokens)},
              {"ended", each.ended}};
    if (!each.alignment.empty()) {
      Json rows = Json::array();
      for (std::size_t at = 0; at < each.alignment.size(); at += read.size()) {
        rows.push_back(std::span(each.alignment).subspan(at, read.size()));
      }
      json["alignment"] = rows;
    }
    hypotheses.push_back(json);
  }
  return json_line({{"source", line.text},
                    {"source_tokens", tokens_of(translations.source(), read)},
                    {"hypotheses", hypotheses}});
}

/// The best one; or all, with the line's number and their scores.
std::string as_text(const Translations& translations, std::int64_t number,
                    const std::vector<Hypothesis>& found, bool all) {
  if (!all) return (found.empty() ? "" : translations.text(found.front())) + "\n";
  std::string text;
  for (const Hypothesis& each : found) {
    text += fmt::format("{}\t{:.4f}\t{}\n", number, each.score, translations.text(each));
  }
  return text;
}

}  // namespace

void translate_lines(const PredictArguments& arguments, TrainedModel& trained, bool json) {
  Translations translations(trained);
  BeamOptions options = options_of(arguments.translation, translations.target());
  options.aligned = json && trained.model().translator()->attends();
  options.check();
  LineInput input(arguments.data);
  LineEncoder encoder = translations.encoder(input.name());
  std::int64_t number = 0, unknown = 0;
  for (auto lines = input.next(); !lines.empty(); lines = input.next()) {
    if (number == 0) tell_checkpoint("predict", trained);
    std::vector<LineIds> ids;
    for (const std::string& line : lines) {
      ids.push_back(encoder.next(line));
      unknown += std::count(ids.back().begin(), ids.back().end(), translations.source().unknown());
    }
    const auto found = translations.translate(ids, options, static_cast<std::uint64_t>(number));
    std::string text;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      ++number;
      if (lines[i].ends_with('\n')) lines[i].pop_back();
      text += json
                  ? as_json(translations, {lines[i], ids[i]}, found[i])
                  : as_text(translations, number, found[i], arguments.translation.best.has_value());
    }
    write_output(text);  // at once, for a program that waits for the answer to its lines
  }
  tell_unknown("predict", unknown);
}

}  // namespace carousel
