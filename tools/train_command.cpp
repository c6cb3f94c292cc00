#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "engine/run/training.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands.h"
#include "tools/train_log.h"

namespace carousel {
namespace {

std::atomic<bool> stop_asked{false};
extern "C" void ask_to_stop(int) { stop_asked = true; }

/// The first Ctrl-C (or a polite kill) ends training after the step; the second ends the process.
void watch_interrupts() {
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

/// How steps run, where there is a choice.
const char* steps_text(const Device& device, const MachineConfig& machine) {
  if (is_cpu(device)) return "";
  return machine.graph ? ", steps as CUDA graphs" : ", eager steps";
}

/// Prints the sizes of model and data, and the device.
void print_start(ProgressBar& progress, const Training& training) {
  const RunConfig& config = training.config;
  std::string text =
      fmt::format("{}: {} weights, ", config.kind,
                  count_text(static_cast<double>(training.model->parameters().element_count())));
  for (const auto& [role, vocabulary] : training.corpus.vocabularies.by_role()) {
    text += role == "token" ? fmt::format("vocabulary {}, ", vocabulary.size())
                            : fmt::format("{} {}s, ", vocabulary.size(), role);
  }
  const auto counted = [](const BatchSource* source) {
    return count_text(source == nullptr ? 0 : static_cast<double>(source->counted_per_epoch()));
  };
  progress.line(
      text +
      fmt::format("{} {} to train on in {}{} steps an epoch, {} to validate; {}{}",
                  counted(training.batches.get()), counted_name(training),
                  config.train.window_deviation + config.train.window_halving > 0 ? "about " : "",
                  training.batches->batches_per_epoch(), counted(training.validation()),
                  device_text(training.device), steps_text(training.device, config.machine)));
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

/// "; best validation loss 1.2345 nats per token", or nothing.
std::string best_text(const Training& training) {
  if (!std::isfinite(training.run.best)) return {};
  const auto metrics = training.metrics()();
  const Score score = metrics.front()->decisive();
  const double best = metrics.front()->higher_is_better() ? -training.run.best : training.run.best;
  return "; best validation " + score_text({score.name, best, score.unit}, training);
}

}  // namespace

int train_command(const TrainArguments& arguments, const CommonArguments& common) {
  Overrides overrides = common;
  overrides.is_own = arguments.config.empty();
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
    watch_interrupts();
  };
  const auto end = [&](const Training& training, RunEnd how, const std::filesystem::path& folder) {
    progress.clear();
    const TrainingRun& run = training.run;
    if (how == RunEnd::interrupted) {
      progress.line(fmt::format("stopped after step {} and saved; to go on: carousel resume {}",
                                run.step, shell_word(folder.string())));
    } else if (how == RunEnd::nothing_to_do) {
      progress.line(fmt::format("{} has done its {} steps; a larger train.steps goes on",
                                folder.string(), run.step));
    } else {
      progress.line(fmt::format("{} after {} steps, {} {}, {} of training{}",
                                how == RunEnd::early ? "stopped early" : "done", run.step,
                                count_text(static_cast<double>(run.tokens)), counted_name(training),
                                duration_text(run.seconds), best_text(training)));
    }
  };
  const RunEnd how = train(config, arguments.out,
                           {.resume = arguments.resume,
                            .observer = &log,
                            .stop = &stop_asked,
                            .begin = begin,
                            .end = end});
  if (how == RunEnd::interrupted) return 130;
  if (!log.last_fault().empty()) {
    throw Error(log.last_fault() + "; the weights are finite and saved");
  }
  return 0;
}

}  // namespace carousel
