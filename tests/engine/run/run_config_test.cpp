#include "engine/run/run_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/files.h"
#include "tests/support/scripted_entry.h"

namespace carousel {
namespace {

using test::error_text;

const ModelEntry kModels[] = {test::scripted_entry()};
const std::string kConfig = "[model]\nkind = 'scripted'\n[data]\ntext = '/text'\n";

/// Another value that the option may have, as the command line gives it.
std::string other_value(const Setting& setting) {
  static const std::map<std::string, std::string> kTexts{{"model.weights", "/weights"},
                                                         {"model.embedding_from", "/run"},
                                                         {"data.vocabulary", "/run"},
                                                         {"data.text", "/other"},
                                                         {"data.validation", "/other"},
                                                         {"data.tokens", "word"},
                                                         {"data.sentencepiece", "/other"},
                                                         {"data.byte_bpe", "/other"},
                                                         {"data.sentencepiece_kind", "bpe"},
                                                         {"data.unit", "line"},
                                                         {"data.newline", "eos"},
                                                         {"data.document_end", "x"},
                                                         {"data.answer_after", "x"},
                                                         {"optimizer.kind", "sgd"},
                                                         {"schedule.kind", "cosine"},
                                                         {"optimizer.groups", "*: frozen"},
                                                         {"run.device", "cuda"},
                                                         {"run.precision", "bf16"}};
  if (const auto* integer = std::get_if<std::int64_t>(&setting.value)) {
    return std::to_string(*integer + 1);
  }
  if (const auto* real = std::get_if<double>(&setting.value)) {
    return fmt::format("{}", *real == 0 ? 0.5 : *real / 2);
  }
  if (const auto* flag = std::get_if<bool>(&setting.value)) return *flag ? "false" : "true";
  return kTexts.at(setting.name());
}

// Every option but the kinds, which choose the others, changed alone.
TEST(RunConfig, AResumedRunMayChangeHowLongAndWhereItRunsAndNothingElse) {
  const RunConfig before(kConfig, "before", kModels);
  std::set<std::string> may_change;
  int refused = 0;
  const Config written = Config::parse(before.toml(), "toml", "/");
  for (const Setting& setting : written.settings()) {
    const std::string name = setting.name();
    if (name == "model.kind" || name == "data.kind") continue;
    const std::string assignment = name + "=" + other_value(setting);
    const RunConfig now(kConfig, "now", kModels, {.set = {assignment}});
    ASSERT_NE(now.toml(), before.toml()) << assignment;
    const std::string error =
        error_text<ConfigError>([&] { now.expect_resumes(before, "runs/a"); });
    if (error.empty()) {
      may_change.insert(name);
    } else {
      ++refused;
      EXPECT_TRUE(error.starts_with("--resume: " + name + " is ")) << error;
      EXPECT_NE(error.find("runs/a was trained with " + setting.text), std::string::npos) << error;
    }
  }
  EXPECT_EQ(may_change, (std::set<std::string>{"model.weights",
                                               "model.embedding_from",
                                               "data.vocabulary",
                                               "data.text",
                                               "data.validation",
                                               "data.device_bytes",
                                               "data.sentencepiece",
                                               "data.byte_bpe",
                                               "train.steps",
                                               "train.report_every",
                                               "train.evaluate_every",
                                               "train.save_every",
                                               "train.sample_every",
                                               "train.sample_tokens",
                                               "train.patience",
                                               "train.keep",
                                               "run.device",
                                               "run.threads",
                                               "run.graph",
                                               "optimizer.learning_rate"}));
  EXPECT_GT(refused, 20);
}

TEST(RunConfig, AnotherLearningRateMustBeTyped) {
  const RunConfig before(kConfig, "before", kModels);
  const std::string other = kConfig + "[optimizer]\nlearning_rate = 0.5\n";
  EXPECT_NE(error_text<ConfigError>(
                [&] { RunConfig(other, "now", kModels).expect_resumes(before, "run"); }),
            "");
  const std::vector<std::string> changes{"train.steps is 7, was 2000",
                                         "optimizer.learning_rate is 0.5, was 0.001"};
  const RunConfig typed(kConfig, "now", kModels,
                        {.set = {"optimizer.learning_rate=0.5", "train.steps=7"}});
  EXPECT_EQ(typed.expect_resumes(before, "run"), changes);
  const RunConfig own(other, "now", kModels, {.set = {"train.steps=7"}, .is_own = true});
  EXPECT_EQ(own.expect_resumes(before, "run"), changes);
}

TEST(RunConfig, TheFormerNameOfAKindMeansTheKind) {
  std::string former = kConfig;
  former.replace(former.find("scripted"), 8, "recited");
  const RunConfig config(former, "config", kModels), now(kConfig, "config", kModels);
  EXPECT_EQ(config.entry, &kModels[0]);
  EXPECT_EQ(config.toml(), now.toml());
  EXPECT_NO_THROW(now.expect_resumes(config, "run"));
  EXPECT_EQ(error_text<ConfigError>([] { find_model(kModels, "scripter"); }),
            "model.kind is 'scripter', expected one of: scripted; did you mean 'scripted'?");
}

TEST(RunConfig, WhatItWritesReadsBackAsTheSame) {
  const RunConfig config(kConfig, "config", kModels,
                         {.set = {"train.steps=7", "schedule.decay=0.3", "model.loss=1e-30"}});
  EXPECT_EQ(config.schedule.steps, 7) << "a schedule is as long as the training";
  EXPECT_EQ(RunConfig(config.toml(), "again", kModels).toml(), config.toml());
}

TEST(RunConfig, KeysThatAreSetInVainAreTold) {
  const auto told = [](std::vector<std::string> set) {
    return RunConfig(kConfig, "config", kModels, {.set = std::move(set)}).without_effect();
  };
  using Strings = std::vector<std::string>;
  EXPECT_EQ(told({}), Strings{});
  EXPECT_EQ(told({"train.window=9", "data.newline=eos", "optimizer.kind=sgd",
                  "optimizer.momentum=0.5", "schedule.kind=step", "schedule.decay=0.3"}),
            Strings{});
  EXPECT_EQ(told({"data.unit=line", "train.window=9", "data.newline=eos"}),
            Strings{"data.newline = \"eos\", train.window = 9 have no effect: the data is lines"});
  EXPECT_EQ(told({"optimizer.kind=adam", "optimizer.momentum=0.5", "schedule.decay=0.3"}),
            (Strings{"optimizer.momentum = 0.5 has no effect: the kind is not sgd or rmsprop",
                     "schedule.decay = 0.3 has no effect: the kind is not step or plateau"}));
  EXPECT_EQ(told({"data.validation=other", "data.train_fraction=0.5", "train.sample_tokens=7"}),
            (Strings{"data.train_fraction = 0.5 has no effect: data.validation is given",
                     "train.sample_tokens = 7 has no effect: train.sample_every is 0"}));
}

TEST(RunConfig, NewlinesAreTokensBetweenWordsUnlessToldOtherwise) {
  for (const auto& [tokens, given, becomes] : {std::array{"char", "auto", "text"},
                                               {"byte", "auto", "text"},
                                               {"word", "auto", "eos"},
                                               {"word", "text", "text"},
                                               {"char", "eos", "eos"},
                                               {"word", "line", "line"}}) {
    const RunConfig config(
        kConfig, "config", kModels,
        {.set = {std::string("data.tokens=") + tokens, std::string("data.newline=") + given}});
    EXPECT_NE(config.toml().find(fmt::format("\nnewline = \"{}\"\n", becomes)), std::string::npos)
        << tokens << ' ' << given << '\n'
        << config.toml();
  }
}

TEST(RunConfig, AModelThatReadsWhatTheDataLacksIsOneError) {
  ModelEntry reader = test::scripted_entry();
  static constexpr const char* kColumns[] = {"token", "label"};
  reader.columns = kColumns;
  const ModelEntry models[] = {reader};
  EXPECT_NE(error_text<ConfigError>([&] {
              RunConfig(kConfig, "config", models);
            }).find("model.kind = scripted"),
            std::string::npos);
}

}  // namespace
}  // namespace carousel
