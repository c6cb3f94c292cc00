#include "tools/commands/search_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/generation/tidy_text.h"
#include "engine/run/trained_model.h"
#include "kernels/common/check.h"
#include "tools/console/json_line.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

std::string tidied(const std::string& text, const std::string& prompt) {
  TidyText tidy;
  tidy.read(prompt);
  std::string result = tidy.next(text);
  return result + tidy.finish();
}

}  // namespace

BeamOptions beam_options(const SearchArguments& arguments, const Vocabulary& vocabulary) {
  BeamOptions options{.best = arguments.best.value_or(1)};
  options.beam = arguments.beam.value_or(std::max(options.beam, options.best));
  options.length_penalty = arguments.length_penalty.value_or(options.length_penalty);
  for (const std::string& token : arguments.suppress) {
    const std::int32_t id = vocabulary.id(token);
    if (id < 0) throw ConfigError(fmt::format("--suppress {}: the model has no such token", token));
    options.suppressed.push_back(id);
  }
  return options;
}

void expect_one_of_each(std::initializer_list<Exclusion> pairs) {
  for (const Exclusion& pair : pairs) {
    if (!pair.both) continue;
    throw ConfigError(
        fmt::format("{} and {} exclude each other: {}", pair.one, pair.other, pair.why));
  }
}

void expect_sampling(const SamplingConfig& how, const char* greedy) {
  if (!(how.temperature > 0)) {
    throw ConfigError(
        fmt::format("--temperature is {}, expected more than 0 ({} takes the likeliest)",
                    how.temperature, greedy));
  }
  if (how.top_k < 0) throw ConfigError(fmt::format("--top-k is {}, expected 0 or more", how.top_k));
  if (!(how.top_p > 0 && how.top_p <= 1)) {
    throw ConfigError(fmt::format("--top-p is {}, expected more than 0 and at most 1", how.top_p));
  }
}

void print_found(const GenerateArguments& arguments, const TrainedModel& trained,
                 const FoundTexts& found, bool json) {
  const Vocabulary& vocabulary = trained.vocabularies()["token"];
  const bool writes_lines = vocabulary.begin() >= 0, all = arguments.search.best.has_value();
  for (std::size_t i = 0; i < found.texts.size(); ++i) {
    const Hypothesis& each = found.texts[i].hypothesis;
    const std::string text =
        found.prompt +
        (arguments.tidy ? tidied(found.texts[i].text, found.prompt) : found.texts[i].text);
    if (json) {
      write_output(json_line({{"checkpoint", trained.checkpoint()},
                              {"step", trained.step()},
                              {"prompt", found.prompt},
                              {"text", text},
                              {"number", i + 1},
                              {"end", !each.ended    ? "length"
                                      : writes_lines ? "line"
                                                     : "document"},
                              {"tokens", each.tokens.size()},
                              {"score", each.score},
                              {"log_probability", each.log_probability}}));
    } else if (all && writes_lines) {
      write_output(fmt::format("{:.4f}\t{}\n", each.score, text));
    } else if (all) {
      write_output(fmt::format("--- text {} of {}, score {:.4f} ---\n{}\n", i + 1,
                               found.texts.size(), each.score, text));
    } else {
      write_output(text + "\n");
    }
  }
}

}  // namespace carousel
