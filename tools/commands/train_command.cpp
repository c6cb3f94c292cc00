#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/run/run_folder.h"
#include "engine/run/training.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/commands/train_log.h"
#include "tools/console/interrupt.h"
#include "tools/console/json_line.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

/// How steps run, where there is a choice.
const char* steps_text(const Device& device, const MachineConfig& machine) {
  if (is_cpu(device)) return "";
  return machine.graph ? ", steps as CUDA graphs" : ", eager steps";
}

/// Prints the sizes of model and data, and the device.
void print_start(ProgressBar& progress, const Training& training) {
  const RunConfig& config = training.config;
  std::string text = fmt::format("{}: {}, ", config.kind,
                                 about(training.model->parameters().element_count(), "weight"));
  for (const auto& [role, vocabulary] : training.corpus.vocabularies.by_role()) {
    text += role == "token" ? fmt::format("vocabulary {}, ", vocabulary.size())
                            : counted(vocabulary.size(), role.c_str()) + ", ";
  }
  const BatchSource* const validation = training.validation();
  const std::int64_t to_validate = validation == nullptr ? 0 : validation->counted_per_epoch();
  progress.line(
      text +
      fmt::format("{} to train on in {}{} an epoch, {} to validate; {}{}",
                  about(training.batches->counted_per_epoch(), counted_name(training)),
                  config.train.window_deviation + config.train.window_halving > 0 ? "about " : "",
                  counted(training.batches->batches_per_epoch(), "step"),
                  count_text(static_cast<double>(to_validate)), device_text(training.device),
                  steps_text(training.device, config.machine)));
}

/// A word as a shell reads it.
std::string shell_word(const std::string& text) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::strchr("_-./+:,@%", c) != nullptr;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// Says which share of the tokens a model does not know, if any are unknown.
void print_unknown(ProgressBar& progress, const Training& training) {
  const Corpus& corpus = training.corpus;
  const std::int32_t unknown = corpus.vocabularies["token"].unknown();
  if (unknown < 0) return;
  std::vector<std::string> shares;
  bool any = false;
  for (const auto& [split, part] :
       {std::pair{"train on", &corpus.train}, std::pair{"validate", &corpus.validation}}) {
    const TokenRange* const tokens = part->find("token");
    if (tokens == nullptr || tokens->count == 0) continue;
    const std::int64_t found = tokens->count_of(unknown);
    any = any || found > 0;
    shares.push_back(
        fmt::format("{:.2f} % of those to {}",
                    100 * static_cast<double>(found) / static_cast<double>(tokens->count), split));
  }
  if (any) progress.line(fmt::format("tokens that are <unk>: {}", fmt::join(shares, ", ")));
}

/// The best validation score so far, if there was an evaluation.
std::optional<Score> best_score(const Training& training) {
  if (!std::isfinite(training.run.best)) return {};
  const auto metrics = training.metrics()();
  const Score score = metrics.front()->decisive();
  const double best = metrics.front()->higher_is_better() ? -training.run.best : training.run.best;
  return Score{score.name, best, score.unit};
}

/// "; best validation loss 1.2345 nats per token", or nothing.
std::string best_text(const Training& training) {
  const std::optional<Score> best = best_score(training);
  return best ? "; best validation " + score_text(*best, training) : "";
}

/// What train --json prints at the end. Its losses are those of the last report in this session.
std::string result_json(const Training& training, RunEnd how, const std::filesystem::path& folder,
                        const std::optional<Report>& last) {
  static constexpr const char* kEnds[] = {"finished", "interrupted", "early", "nothing to do"};
  using Json = nlohmann::ordered_json;
  const TrainingRun& run = training.run;
  Json json{{"end", kEnds[static_cast<int>(how)]},
            {"folder", folder.string()},
            {"step", run.step},
            {"steps", training.config.train.steps},
            {fmt::format("{}s", counted_name(training)), run.tokens},
            {"seconds", run.seconds},
            {"loss", last && !last->belated ? Json(last->loss) : Json()},
            {"validation", Json()},
            {"best", Json()}};
  if (last && last->validation) {
    for (const Score& score : last->validation->scores)
      json["validation"][score.name] = score.value;
  }
  if (const std::optional<Score> best = best_score(training))
    json["best"][best->name] = best->value;
  return json_line(json);
}

}  // namespace

int train_command(const TrainArguments& arguments, const CommonArguments& common) {
  Overrides overrides = common;
  overrides.is_own = arguments.config.empty();
  if (overrides.is_own) expect_run(arguments.out);
  const RunConfig config(overrides.is_own ? std::filesystem::path(arguments.out) / "config.toml"
                                          : std::filesystem::path(arguments.config),
                         model_registry(), overrides);
  if (config.train.sample_every > 0) {
    expect_ability(config.entry->decodes, "train.sample_every", *config.entry);
  }
  TrainLog log(config);
  if (common.explain) log.explain();
  ProgressBar& progress = log.progress();
  const auto begin = [&](const Training& training) {
    log.begin(training);
    print_start(progress, training);
    print_unknown(progress, training);
    if (training.run.step == 0 && !config.weights.empty()) {
      progress.line(fmt::format("weights: begin as in {}", config.weights.string()));
    }
    watch_interrupts(Waiting::goes_on);
  };
  const auto end = [&](const Training& training, RunEnd how, const std::filesystem::path& folder) {
    progress.clear();
    const TrainingRun& run = training.run;
    if (how == RunEnd::interrupted) {
      progress.verbatim(
          fmt::format("stopped after step {} and saved; to go on:\n  carousel resume {}", run.step,
                      shell_word(folder.string())));
    } else if (how == RunEnd::nothing_to_do) {
      progress.line(fmt::format("{} has done its {}; a larger train.steps goes on", folder.string(),
                                counted(run.step, "step")));
    } else {
      progress.line(fmt::format(
          "{} after {}, {}, {} of training{}", how == RunEnd::early ? "stopped early" : "done",
          counted(run.step, "step"), about(run.tokens, counted_name(training)),
          duration_text(run.seconds), best_text(training)));
    }
    if (common.json) write_output(result_json(training, how, folder, log.last_report()));
  };
  const RunEnd how = train(config, arguments.out,
                           {.resume = arguments.resume,
                            .observer = &log,
                            .stop = &interrupted(),
                            .begin = begin,
                            .end = end});
  if (how == RunEnd::interrupted) return 130;
  if (!log.last_fault().empty()) {
    throw Error(log.last_fault() + "; the weights are finite and saved");
  }
  return 0;
}

}  // namespace carousel
