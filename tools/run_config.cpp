#include "tools/run_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/config/nearest.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::int64_t kMany = std::int64_t{1} << 40;

void describe(OptionSection& section, TrainConfig& train) {
  section.add("steps", train.steps, "optimiser steps", {1, kMany});
  section.add("batch", train.batch, "parallel sequences", {1, 1 << 20});
  section.add("window", train.window, "time steps of truncated BPTT", {1, 1 << 24});
  section.add("seed", train.seed, "of weights, masks and shuffling", {0, kMany});
  section.add("report_every", train.report_every, "steps between lines of metrics", {1, 1 << 20});
  section.add("evaluate_every", train.evaluate_every, "steps; 0: at the end", {0, kMany});
  section.add("save_every", train.save_every, "steps; 0: at the end", {0, kMany});
  section.add("sample_every", train.sample_every, "steps; 0: never", {0, kMany});
  section.add("sample_tokens", train.sample_tokens, "tokens of a sample", {1, 1 << 20});
  section.add("patience", train.patience,
              "evaluations without a new best before training stops; 0: never", {0, kMany});
  section.add("keep", train.keep, "checkpoints kept besides the last and the best", {0, 1 << 20});
}

void describe(OptionSection& section, MachineConfig& machine) {
  section.add("device", machine.device, "where to run; auto: a GPU if there is one",
              {{"auto", DeviceChoice::automatic},
               {"cpu", DeviceChoice::cpu},
               {"cuda", DeviceChoice::cuda}});
  section.add("precision", machine.precision, "of products; weights stay float",
              {{"f32", Precision::f32}, {"tf32", Precision::tf32}, {"bf16", Precision::bf16}});
  section.add("threads", machine.threads, "CPU threads; 0: all cores", {0, 4096});
  section.add("graph", machine.graph, "on CUDA, a step is one CUDA graph; the same bits");
}

void describe(OptionSection& section, OptimizerConfig& optimizer, double& learning_rate) {
  const RealRange fraction{.least = 0, .most = 1, .below_most = true};
  section.add("kind", optimizer.kind, "sgd, adam or adamw", {"sgd", "adam", "adamw"});
  section.add("learning_rate", learning_rate, "the highest", {.least = 0});
  section.add("momentum", optimizer.momentum, "of sgd", fraction);
  section.add("nesterov", optimizer.nesterov, "momentum looks ahead");
  section.add("beta1", optimizer.beta1, "of adam", fraction);
  section.add("beta2", optimizer.beta2, "of adam", fraction);
  section.add("epsilon", optimizer.epsilon, "of adam", {.least = 1e-30, .most = 1});
  section.add("weight_decay", optimizer.weight_decay, "decoupled in adamw", {.least = 0});
  section.add("clip_norm", optimizer.clip_norm, "of the whole gradient; 0: none", {.least = 0});
  section.add("clip_value", optimizer.clip_value, "of each element, after clip_norm; 0: none",
              {.least = 0});
}

void describe(OptionSection& section, Schedule& schedule) {
  section.add("kind", schedule.kind, "how the learning rate goes",
              {"constant", "cosine", "step", "plateau"});
  section.add("warm_up", schedule.warm_up, "steps of linear rise at the start", {0, kMany});
  section.add("final_fraction", schedule.final_fraction, "cosine: of the rate, at the end",
              {.least = 0, .most = 1});
  section.add("period", schedule.period, "step: steps between decays", {1, kMany});
  section.add("decay", schedule.decay, "step, plateau: factor of a decay",
              {.least = 0, .most = 1, .above_least = true});
  section.add("patience", schedule.patience, "plateau: evaluations without a best", {1, kMany});
}

const ModelEntry& find_model(const std::string& kind) {
  std::vector<std::string> kinds;
  for (const ModelEntry& entry : model_registry()) {
    if (kind == entry.kind) return entry;
    kinds.emplace_back(entry.kind);
  }
  const std::string guess = nearest(kind, kinds);
  throw ConfigError(fmt::format("model.kind is '{}', expected one of: {}{}", kind,
                                fmt::join(kinds, ", "),
                                guess.empty() ? "" : "; did you mean '" + guess + "'?"));
}

}  // namespace

RunConfig::RunConfig(const std::filesystem::path& file, const CommonArguments& common) {
  apply(Config::read(file), common);
}

RunConfig::RunConfig(const std::string& text, const std::string& name,
                     const CommonArguments& common) {
  apply(Config::parse(text, name, std::filesystem::current_path()), common);
}

RunConfig::RunConfig(const std::string& model_kind)
    : kind(model_kind),
      model(find_model(model_kind).config()),
      data(carousel::data_kind(data_kind).config()) {
  describe();
}

void RunConfig::describe() {
  OptionSection& section = options_.section("model", "what is trained");
  section.add("kind", kind, "see `carousel models`").require();
  section.add("weights", weights,
              "a safetensors file to begin with, named as PyTorch names; empty: as init says");
  model->describe(section);
  OptionSection& data_section = options_.section("data", "what it learns");
  data_section.add("kind", data_kind, "what its text is");
  data->describe(data_section);
  carousel::describe(options_.section("train", "how long, and what is kept"), train);
  carousel::describe(options_.section("optimizer", "how weights change"), optimizer,
                     schedule.learning_rate);
  carousel::describe(options_.section("schedule", "the learning rate over time"), schedule);
  carousel::describe(options_.section("run", "where it runs"), machine);
}

void RunConfig::apply(Config config, const CommonArguments& common) {
  for (const std::string& assignment : common.set) config.set(assignment);
  const auto set = [&](const char* key, const std::string& value, const std::string& typed) {
    config.set(fmt::format("run.{}={}", key, value),
               typed.empty() ? fmt::format("--{} {}", key, value) : typed);
  };
  if (common.device) set("device", *common.device, common.device_typed);
  if (common.precision) set("precision", *common.precision, common.precision_typed);
  if (common.threads) set("threads", std::to_string(*common.threads), {});
  model = find_model(config.text("model", "kind", "")).config();
  data = carousel::data_kind(config.text("data", "kind", data_kind)).config();
  describe();
  options_.apply(config);
  schedule.steps = train.steps;
}

}  // namespace carousel
