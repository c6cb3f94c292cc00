#include "engine/run/run_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/training/parameter_groups.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::int64_t kMany = std::int64_t{1} << 40;

void describe(OptionSection& section, TrainConfig& train, const DataConfig& data) {
  section.add("steps", train.steps, "optimiser steps", {1, kMany}).may_change();
  section.add("batch", train.batch, "parallel sequences", {1, 1 << 20})
      .when([&train] { return train.tokens_per_batch == 0; }, "train.tokens_per_batch is given");
  section.add("tokens_per_batch", train.tokens_per_batch,
              "of pairs: a batch has as many as fit into so many tokens of either side, padding "
              "too; 0: as train.batch says",
              {0, 1 << 24});
  section.add("accumulate", train.accumulate,
              "batches whose gradients make a step: that of one batch as many times as large, in "
              "the memory of one",
              {1, 1 << 12});
  section.add("window", train.window, "time steps of truncated BPTT", {1, 1 << 24})
      .when([&data] { return !data.lines(); }, "the data is lines");
  section.add(
      "window_deviation", train.window_deviation,
      "a stream's windows are drawn around window with this deviation, and the learning rate "
      "is scaled by their length; 0: all are equal",
      {.least = 0, .most = 1e6});
  section.add("window_halving", train.window_halving,
              "probability with which a window is drawn around half of window",
              {.least = 0, .most = 1});
  section.add("random_start", train.random_start,
              "each epoch of a stream leaves out up to a window of tokens at its start");
  section.add("reset_probability", train.reset_probability,
              "with which a row of a stream begins a window without a state, so that the model "
              "also learns to begin",
              {.least = 0, .most = 1});
  section.add("seed", train.seed, "of weights, masks and shuffling", {0, kMany});
  section.add("report_every", train.report_every, "steps between lines of metrics", {1, 1 << 20})
      .may_change();
  section.add("evaluate_every", train.evaluate_every, "steps; 0: at the end", {0, kMany})
      .may_change();
  section.add("save_every", train.save_every, "steps; 0: at the end", {0, kMany}).may_change();
  section.add("sample_every", train.sample_every, "steps; 0: never", {0, kMany}).may_change();
  section.add("sample_tokens", train.sample_tokens, "tokens of a sample", {1, 1 << 20})
      .may_change()
      .when([&train] { return train.sample_every > 0; }, "train.sample_every is 0");
  section
      .add("patience", train.patience,
           "evaluations without a new best before training stops; 0: never", {0, kMany})
      .may_change();
  section.add("keep", train.keep, "checkpoints kept besides the last and the best", {0, 1 << 20})
      .may_change();
}

void describe(OptionSection& section, OptimizerConfig& optimizer, double& learning_rate) {
  const RealRange fraction{.least = 0, .most = 1, .below_most = true};
  section.add("kind", optimizer.kind, "the update rule",
              {OptimizerConfig::kKinds.begin(), OptimizerConfig::kKinds.end()});
  section.add("learning_rate", learning_rate, "the highest", {.least = 0});
  section.add("momentum", optimizer.momentum, "sgd, rmsprop", fraction)
      .of(optimizer.kind, {"sgd", "rmsprop"});
  section.add("nesterov", optimizer.nesterov, "sgd: momentum looks ahead")
      .of(optimizer.kind, {"sgd"});
  section.add("beta1", optimizer.beta1, "adam, adamw", fraction)
      .of(optimizer.kind, {"adam", "adamw"});
  section.add("beta2", optimizer.beta2, "adam, adamw", fraction)
      .of(optimizer.kind, {"adam", "adamw"});
  section
      .add("epsilon", optimizer.epsilon, "all but sgd: added to what the gradient is divided by",
           {.least = 1e-30, .most = 1})
      .of(optimizer.kind, {"adam", "adamw", "rmsprop", "adagrad"});
  section.add("alpha", optimizer.alpha, "rmsprop: of the mean square that is kept", fraction)
      .of(optimizer.kind, {"rmsprop"});
  section.add("centered", optimizer.centered, "rmsprop: divide by the deviation from the mean")
      .of(optimizer.kind, {"rmsprop"});
  section
      .add("rate_decay", optimizer.rate_decay,
           "adagrad: the rate is divided by 1 + this for each update before", {.least = 0})
      .of(optimizer.kind, {"adagrad"});
  section
      .add("initial_accumulator", optimizer.initial_accumulator,
           "adagrad: what the sums of squares begin with", {.least = 0})
      .of(optimizer.kind, {"adagrad"});
  section.add("weight_decay", optimizer.weight_decay, "decoupled in adamw", {.least = 0});
  section.add(
      "average_after", optimizer.average_after,
      "NT-ASGD: n, where weights are averaged, for evaluation and in checkpoints, from the "
      "first validation on that is worse than the best of all before but the last n; 0: never",
      {0, 1 << 20});
  section.add("groups", optimizer.groups,
              "settings of parameters by name: \"*bias*: weight_decay=0; output.*: frozen\", also "
              "learning_rate_factor; the last group that a name is like holds");
  section.add("clip_norm", optimizer.clip_norm, "of the whole gradient; 0: none", {.least = 0});
  section.add("clip_value", optimizer.clip_value, "of each element, after clip_norm; 0: none",
              {.least = 0});
}

void describe(OptionSection& section, Schedule& schedule) {
  section.add("kind", schedule.kind, "how the learning rate goes",
              {"constant", "linear", "cosine", "inverse_sqrt", "step", "plateau"});
  section.add("warm_up", schedule.warm_up, "steps of linear rise at the start", {0, kMany});
  section
      .add("final_fraction", schedule.final_fraction, "linear, cosine: of the rate, at the end",
           {.least = 0, .most = 1})
      .of(schedule.kind, {"linear", "cosine"});
  section
      .add("onset", schedule.onset,
           "step: steps after warm_up before the first decay; 0: as many as period", {0, kMany})
      .of(schedule.kind, {"step"});
  section
      .add("period", schedule.period,
           "step: steps between decays; training begins with saying how many an epoch has",
           {1, kMany})
      .of(schedule.kind, {"step"});
  section
      .add("decay", schedule.decay, "step, plateau: factor of a decay",
           {.least = 0, .most = 1, .above_least = true})
      .of(schedule.kind, {"step", "plateau"});
  section.add("patience", schedule.patience, "plateau: evaluations without a best", {1, kMany})
      .of(schedule.kind, {"plateau"});
}

void apply_overrides(Config& config, const Overrides& overrides) {
  for (const std::string& assignment : overrides.set) config.set(assignment);
  const auto set = [&](const char* key, const std::string& value, const std::string& typed) {
    config.set(fmt::format("run.{}={}", key, value),
               typed.empty() ? fmt::format("--{} {}", key, value) : typed);
  };
  if (overrides.device) set("device", *overrides.device, overrides.device_typed);
  if (overrides.precision) set("precision", *overrides.precision, overrides.precision_typed);
  if (overrides.threads) set("threads", std::to_string(*overrides.threads), {});
}

}  // namespace

MachineConfig machine_config(const Overrides& overrides) {
  MachineConfig machine;
  Options options;
  machine.describe(options.section("run", "where it runs"));
  Config config = Config::parse("", "the command line", {});
  apply_overrides(config, overrides);
  options.apply(config);
  return machine;
}

RunConfig::RunConfig(const std::filesystem::path& file, Models models, const Overrides& overrides) {
  apply(Config::read(file), models, overrides);
}

RunConfig::RunConfig(const std::string& text, const std::string& name, Models models,
                     const Overrides& overrides) {
  apply(Config::parse(text, name, std::filesystem::current_path()), models, overrides);
}

void RunConfig::describe() {
  OptionSection& section = options_.section("model", "what is trained");
  section.add("kind", kind, "the kind of model: `carousel models` lists all").require();
  section
      .add("weights", weights,
           "a run or a safetensors file to begin with, named as PyTorch names; empty: as init says")
      .may_change();  // a checkpoint's weights have taken its place
  section
      .add("embedding_from", embedding_from,
           "a run, or a file of vectors (.vec, .txt, .bin, or a safetensors file of Carousel's), "
           "whose "
           "embeddings tokens of the same text begin with; optimizer.groups can freeze "
           "\"embedding.weight\"")
      .may_change();
  OptionSection& learnt = options_.section("data", "what it learns");
  learnt.add("kind", data_kind, "the kind of data: `carousel models` lists all");
  learnt
      .add("vocabulary", data->vocabulary_from,
           "of a run, or a file of Carousel's, instead of that of the text")
      .may_change();  // the checkpoint's has taken its place
  carousel::describe(options_.section("train", "how long, and what is kept"), train, *data);
  carousel::describe(options_.section("optimizer", "how weights change"), optimizer,
                     schedule.learning_rate);
  carousel::describe(options_.section("schedule", "the learning rate over time"), schedule);
  machine.describe(options_.section("run", "where it runs"));
}

void RunConfig::describe_as_fitted() {
  const std::string why =
      fmt::format("model.kind = {} is fitted, not trained in steps", entry->kind);
  const std::string on_cpu = fmt::format("model.kind = {} runs on the CPU", entry->kind);
  for (const char* const section : {"train", "optimizer", "schedule"}) {
    options_.section(section).without_effect(why, {"seed", "keep"});
  }
  options_.section("model").without_effect(why, {"kind"});
  options_.section("run").without_effect(on_cpu, {"device", "threads"});
}

void RunConfig::visit_common(const std::function<void(const Options&)>& visit) {
  RunConfig config;
  config.data = carousel::data_kind(config.data_kind).config();
  config.describe();
  visit(config.options_);
}

void RunConfig::apply(Config config, Models models, const Overrides& overrides) {
  apply_overrides(config, overrides);
  const Setting* const rate = config.find("optimizer", "learning_rate");
  rate_is_typed_ = overrides.is_own || (rate != nullptr && rate->from_command_line);
  entry = &find_model(models, config.text("model", "kind", ""));
  model = entry->config();
  const DataKind& given = carousel::data_kind(config.text("data", "kind", data_kind));
  expect_columns(given, entry->columns, fmt::format("model.kind = {}", entry->kind));
  data = given.config();
  describe();
  if (entry->fits) describe_as_fitted();
  model->describe(options_.section("model"));
  data->describe(options_.section("data"));
  options_.apply(config);
  data->complete();
  kind = entry->kind;  // not a former name
  schedule.steps = train.steps;
  parameter_groups(optimizer.groups);  // refuses what is none
  if (!entry->fits) return;
  if (machine.device == DeviceChoice::cuda) {
    throw ConfigError(
        fmt::format("run.device is cuda, and model.kind = {} runs on the CPU", entry->kind));
  }
  machine.device = DeviceChoice::cpu;
}

SamplerOptions RunConfig::sampler_options(const Device& device, bool training) const {
  return {.device = device,
          .batch = train.batch,
          .tokens = entry->fits ? 0 : train.tokens_per_batch,
          .window = train.window,
          .window_deviation = train.window_deviation,
          .window_halving = train.window_halving,
          .reset_probability = train.reset_probability,
          .random_start = train.random_start,
          .seed = seed(),
          .training = training,
          // What is fitted is judged exactly: training does not wait for it again and again.
          .rows = entry->fits ? 1 : train.batch};
}

std::vector<std::string> RunConfig::expect_resumes(const RunConfig& before,
                                                   const std::string& run) const {
  std::vector<std::string> changes;
  const Config now = Config::parse(toml(), "config", {});
  const Config then = Config::parse(before.toml(), "checkpoint", {});
  for (const Setting& setting : now.settings()) {
    const Setting* was = then.find(setting.section, setting.key);
    if (was != nullptr && was->text == setting.text) continue;
    const bool typed_rate = rate_is_typed_ && setting.name() == "optimizer.learning_rate";
    if (typed_rate || options_.may_change(setting.name())) {
      changes.push_back(fmt::format("{} is {}, was {}", setting.name(), setting.text,
                                    was == nullptr ? "no option" : was->text));
      continue;
    }
    throw ConfigError(fmt::format("--resume: {} is {} now, and {} was trained with {}",
                                  setting.name(), setting.text, run,
                                  was == nullptr ? "no such option" : was->text));
  }
  return changes;
}

}  // namespace carousel
