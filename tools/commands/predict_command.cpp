#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/model/state_tracker.h"
#include "engine/run/trained_model.h"
#include "engine/text/prompt.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/commands/translate_lines.h"
#include "tools/console/json_line.h"
#include "tools/console/line_input.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

using Json = nlohmann::ordered_json;

void predict_labels(const PredictArguments& arguments, TrainedModel& trained, bool json) {
  const Corpus corpus =
      trained.config().data->inputs(text_of_input(arguments.data), trained.vocabularies(), {});
  tell_checkpoint("predict", trained);
  tell_unknown("predict", corpus.validation["token"].store->unknown());
  const Vocabulary& labels = trained.vocabularies()["label"];
  for (const std::vector<double>& probability : trained.predict(corpus)) {
    const auto likeliest = std::max_element(probability.begin(), probability.end());
    const auto label = static_cast<std::int32_t>(likeliest - probability.begin());
    if (!json) {
      write_output(fmt::format("{}\t{:.4f}\n", labels.token(label), *likeliest));
      continue;
    }
    Json all = Json::object();
    for (std::int32_t id = 0; id < labels.size(); ++id) {
      all[labels.token(id)] = probability[static_cast<std::size_t>(id)];
    }
    write_output(json_line(
        {{"label", labels.token(label)}, {"probability", *likeliest}, {"probabilities", all}}));
  }
}

StateQuestion question_of(const std::string& what) {
  if (what.empty() || what == "path") return StateQuestion::path;
  if (what == "filter") return StateQuestion::filter;
  if (what == "smooth") return StateQuestion::smooth;
  throw ConfigError(fmt::format("--what is {}, expected path, filter or smooth", what));
}

/// What is printed of a line: the states of its text, without that of its end.
struct TrackedLine {
  const TrackedStates& all;
  std::span<const std::int32_t> states;
  const StateTracker& tracker;
  const Vocabulary& vocabulary;

  std::string text() const {
    return tracker.states_are_tokens() ? vocabulary.decode(states)
                                       : fmt::format("{}", fmt::join(states, " "));
  }
  std::string json() const {
    // −∞, of a line that cannot come, is no number in JSON: null.
    const bool is_possible = all.log_probability > -HUGE_VAL;
    Json json{{"states", states},
              {"log_probability", is_possible ? Json(all.log_probability) : Json()}};
    if (tracker.states_are_tokens()) json["text"] = vocabulary.decode(states);
    if (all.probabilities.empty()) return json_line(json);
    json["probabilities"] = Json::array();
    const auto width = static_cast<std::size_t>(tracker.states());
    for (std::size_t t = 0; t < states.size(); ++t) {
      json["probabilities"].push_back(std::span(all.probabilities).subspan(t * width, width));
    }
    return json_line(json);
  }
};

void predict_states(const PredictArguments& arguments, TrainedModel& trained, bool json) {
  const StateQuestion question = question_of(arguments.what);
  const StateTracker& tracker = *trained.model().state_tracker();
  const Vocabulary& vocabulary = trained.vocabularies()["token"];
  LineInput input(arguments.data);
  LineEncoder encoder(vocabulary, input.name(), LineEncoder::End::closed);
  bool told = false;
  for (auto lines = input.next(); !lines.empty(); lines = input.next()) {
    std::vector<std::vector<std::int32_t>> sequences;
    for (const std::string& line : lines) {
      sequences.push_back(encoder.next(line));
      std::erase(sequences.back(), vocabulary.begin());
    }
    if (!std::exchange(told, true)) tell_checkpoint("predict", trained);
    const std::vector<TrackedStates> answers = tracker.track(sequences, question);
    std::string text;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const std::vector<std::int32_t>& tokens = sequences[i];
      const bool ends = !tokens.empty() && tokens.back() == line_end_token(vocabulary);
      const TrackedLine line{answers[i],
                             std::span(answers[i].states).first(tokens.size() - (ends ? 1 : 0)),
                             tracker, vocabulary};
      text += json ? line.json() : line.text() + "\n";
    }
    write_output(text);  // at once, for a program that waits for the answer to its lines
  }
}

}  // namespace

int predict_command(const PredictArguments& arguments, const CommonArguments& common) {
  TrainedModel trained(arguments.run, model_registry(), common, arguments.checkpoint);
  const ModelEntry& entry = *trained.config().entry;
  expect_ability(entry.predicts || entry.tracks || entry.translates, "predict", entry);
  if (arguments.translation.given() && !entry.translates) {
    throw ConfigError(
        fmt::format("--beam, --temperature and what goes with them is for models that translate, "
                    "and model.kind = {} does not",
                    entry.kind));
  }
  if (entry.tracks) {
    predict_states(arguments, trained, common.json);
    return 0;
  }
  if (!arguments.what.empty()) {
    throw ConfigError(
        fmt::format("--what is of hidden states, and model.kind = {} has none", entry.kind));
  }
  if (entry.translates) {
    translate_lines(arguments, trained, common.json);
  } else {
    predict_labels(arguments, trained, common.json);
  }
  return 0;
}

}  // namespace carousel
