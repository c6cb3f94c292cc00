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

#include "engine/model/estimator.h"
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
void print_start(ProgressBar& progress, const RunStatus& run) {
  const RunConfig& config = run.config;
  std::string text = config.kind + ": ";
  if (run.batches != nullptr) {
    text += about(run.model.parameters().element_count(), "weight") + ", ";
  }
  for (const auto& [role, vocabulary] : run.corpus.vocabularies.by_role()) {
    text += role == "label"   ? counted(vocabulary.size(), "label") + ", "
            : role == "token" ? fmt::format("vocabulary {}, ", vocabulary.size())
                              : fmt::format("{} vocabulary {}, ", role, vocabulary.size());
  }
  if (run.batches != nullptr) {
    text +=
        fmt::format("{} to train on in {}{} an epoch",
                    about(run.batches->counted_per_epoch(), counted_name(run.corpus)),
                    config.train.window_deviation + config.train.window_halving > 0 ? "about " : "",
                    counted(run.batches->batches_per_epoch(), "step"));
  } else {
    text += about(run.corpus.train["token"].count, "token") + " to fit to";
  }
  const std::int64_t to_validate =
      run.validation == nullptr ? 0 : run.validation->counted_per_epoch();
  progress.line(text +
                fmt::format(", {} to validate; {}{}", count_text(static_cast<double>(to_validate)),
                            device_text(run.device), steps_text(run.device, config.machine)));
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
void print_unknown(ProgressBar& progress, const Corpus& corpus) {
  for (const auto& [role, vocabulary] : corpus.vocabularies.by_role()) {
    if (vocabulary.unknown() < 0) continue;
    std::vector<std::string> shares;
    bool any = false;
    for (const auto& [split, part] :
         {std::pair{"train on", &corpus.train}, std::pair{"validate", &corpus.validation}}) {
      const TokenRange* const tokens = part->find(role);
      if (tokens == nullptr || tokens->count == 0) continue;
      const std::int64_t found = tokens->count_of(vocabulary.unknown());
      any = any || found > 0;
      shares.push_back(fmt::format(
          "{:.2f} % of those to {}",
          100 * static_cast<double>(found) / static_cast<double>(tokens->count), split));
    }
    if (!any) continue;
    progress.line(fmt::format("{}tokens that are <unk>: {}", role == "token" ? "" : role + " ",
                              fmt::join(shares, ", ")));
  }
}

/// "; best validation loss 1.2345 nats per token", or nothing.
std::string best_text(const RunStatus& run) {
  return run.best ? "; best validation " + score_text(*run.best, run.config, run.corpus) : "";
}

/// What train --json prints at the end. Its losses are those of the last report in this session.
std::string result_json(const RunStatus& run, RunEnd how, const std::filesystem::path& folder,
                        const TrainLog& log) {
  static constexpr const char* kEnds[] = {"finished", "interrupted", "early", "nothing to do"};
  using Json = nlohmann::ordered_json;
  const std::optional<double>& loss = log.last_loss();
  Json json{{"end", kEnds[static_cast<int>(how)]},
            {"folder", folder.string()},
            {"step", run.step},
            {"steps", run.batches != nullptr ? Json(run.config.train.steps) : Json()},
            {fmt::format("{}s", counted_name(run.corpus)), run.tokens},
            {"seconds", run.seconds},
            {"loss", loss ? Json(*loss) : Json()},
            {"validation", Json()},
            {"best", Json()}};
  if (log.last_validation()) {
    for (const Score& score : log.last_validation()->scores)
      json["validation"][score.name] = score.value;
  }
  if (run.best) json["best"][run.best->name] = run.best->value;
  return json_line(json);
}

/// How the fit of an estimator ended, unless it can go on.
std::string fit_end_text(const RunStatus& run, RunEnd how, const std::filesystem::path& folder) {
  if (how == RunEnd::nothing_to_do) {
    return fmt::format("{} is fitted; there is nothing to go on with", folder.string());
  }
  if (run.step == 0) return "stopped before there was a model; nothing is kept";
  return fmt::format("done: {} from {} in {}{}", run.model.estimator()->summary(),
                     about(run.corpus.train["token"].count, counted_name(run.corpus)),
                     duration_text(run.seconds), best_text(run));
}

/// How training ended; the command that goes on is to be copied, and stands as it is.
void print_end(ProgressBar& progress, const RunStatus& run, RunEnd how,
               const std::filesystem::path& folder) {
  progress.clear();
  const bool is_fit = run.batches == nullptr;
  if (how == RunEnd::interrupted && (!is_fit || run.step > 0)) {
    progress.verbatim(fmt::format("stopped after {} {} and saved; to go on:\n  carousel resume {}",
                                  is_fit ? "iteration" : "step", run.step,
                                  shell_word(folder.string())));
  } else if (is_fit) {
    progress.line(fit_end_text(run, how, folder));
  } else if (how == RunEnd::nothing_to_do) {
    progress.line(fmt::format("{} has done its {}; a larger train.steps goes on", folder.string(),
                              counted(run.step, "step")));
  } else {
    progress.line(fmt::format(
        "{} after {}, {}, {} of training{}", how == RunEnd::early ? "stopped early" : "done",
        counted(run.step, "step"), about(run.tokens, counted_name(run.corpus)),
        duration_text(run.seconds), best_text(run)));
  }
}

}  // namespace

int train_command(const TrainArguments& arguments, const CommonArguments& common) {
  Overrides overrides = common;
  overrides.is_own = arguments.config.empty();
  if (overrides.is_own) expect_run(arguments.out);
  const RunConfig config(overrides.is_own ? std::filesystem::path(arguments.out) / "config.toml"
                                          : std::filesystem::path(arguments.config),
                         model_registry(), overrides);
  if (config.train.sample_every > 0 && !config.entry->fits) {
    expect_ability(config.entry->decodes, "train.sample_every", *config.entry);
  }
  if (common.explain && config.entry->fits) {
    throw ConfigError(fmt::format("--explain: model.kind = {} is fitted, not trained in steps",
                                  config.entry->kind));
  }
  TrainLog log(config);
  if (common.explain) log.explain();
  ProgressBar& progress = log.progress();
  const auto begin = [&](const RunStatus& run) {
    watch_interrupts(Waiting::goes_on);
    log.begin(run);
    print_start(progress, run);
    print_unknown(progress, run.corpus);
    if (run.step == 0 && run.batches != nullptr && !config.weights.empty()) {
      progress.line(fmt::format("weights: begin as in {}", config.weights.string()));
    }
  };
  const auto end = [&](const RunStatus& run, RunEnd how, const std::filesystem::path& folder) {
    print_end(progress, run, how, folder);
    if (common.json) write_output(result_json(run, how, folder, log));
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
