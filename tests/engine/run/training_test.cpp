// Training as one call: what it does with the folder of a run.
#include "engine/run/training.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/files.h"
#include "tests/support/scripted_entry.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TemporaryFolder;

const ModelEntry kModels[] = {test::scripted_entry()};

class TrainedRun : public testing::Test {
 protected:
  TrainedRun() { write_text("abcdefghijkl"); }
  void write_text(const std::string& piece) {
    std::string text;
    for (int i = 0; i < 20; ++i) text += piece;
    here_.write("text", text);
  }

  /// Trains with the options changed; how it ended, which must be told once.
  RunEnd train(std::vector<std::string> set, bool resume = false, std::int64_t stop_after = -1) {
    const RunConfig config("[model]\nkind = 'scripted'\n[data]\ntext = '" + here_.path("text") +
                               "'\n[train]\nsteps = 4\nbatch = 2\nwindow = 5\n[run]\n"
                               "device = 'cpu'\n",
                           "config", kModels, {.set = std::move(set)});
    struct Stopper final : TrainObserver {
      void on_step(const TrainingRun& run, const Arena&) override {
        if (run.step == after) stop = true;
      }
      std::atomic<bool> stop = false;
      std::int64_t after = 0;
    } stopper;
    stopper.after = stop_after;
    std::vector<RunEnd> ends;
    begun_at_.clear();
    const RunEnd end = carousel::train(
        config, run_,
        {.resume = resume,
         .observer = &stopper,
         .stop = &stopper.stop,
         .begin =
             [&](const RunStatus& run) {
               begun_at_.push_back(run.step);
               begun_seconds_ = run.seconds;
             },
         .end = [&](const RunStatus&, RunEnd how, const fs::path&) { ends.push_back(how); }});
    EXPECT_EQ(begun_at_.size(), 1U);
    EXPECT_EQ(ends, std::vector<RunEnd>{end});
    return end;
  }
  std::string train_error(std::vector<std::string> set, bool resume) {
    return error_text<ConfigError>([&] { train(std::move(set), resume); });
  }
  std::vector<std::int64_t> reported_steps() const {
    std::vector<std::int64_t> steps;
    std::ifstream file(run_ / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      steps.push_back(std::stoll(line.substr(line.find(':') + 1)));
    }
    return steps;
  }

  TemporaryFolder here_;
  const fs::path run_ = here_ / "run";
  std::vector<std::int64_t> begun_at_;
  double begun_seconds_ = -1;
};

using Steps = std::vector<std::int64_t>;

TEST_F(TrainedRun, EndsAsItDidAndSaysSo) {
  EXPECT_EQ(train({}, false, 2), RunEnd::interrupted);
  EXPECT_EQ(begun_at_, Steps{0});
  EXPECT_EQ(begun_seconds_, 0);
  EXPECT_EQ(reported_steps(), (Steps{1, 2}));
  EXPECT_EQ(train({}, /*resume=*/true), RunEnd::finished);
  EXPECT_EQ(begun_at_, Steps{2});
  EXPECT_GT(begun_seconds_, 0) << "the time of the first part counts";
  EXPECT_EQ(reported_steps(), (Steps{1, 2, 4}));
  EXPECT_EQ(train({}, /*resume=*/true), RunEnd::nothing_to_do);
  EXPECT_EQ(begun_at_, Steps{4});
  EXPECT_EQ(reported_steps(), (Steps{1, 2, 4}));
  // No score is better than the first: the second evaluation without a new best is at step 6.
  const std::vector<std::string> patient{"train.steps=20", "train.evaluate_every=1",
                                         "train.patience=2"};
  EXPECT_EQ(train(patient, /*resume=*/true), RunEnd::early);
  EXPECT_EQ(CheckpointFolder(run_).last()->filename(), "step-6");
  EXPECT_EQ(RunConfig(run_ / "config.toml", kModels).train.patience, 2);
}

TEST_F(TrainedRun, IsEvaluatedWhereItStoppedIfThatIsItsEndNow) {
  EXPECT_EQ(train({}, false, 2), RunEnd::interrupted);
  const auto last_line = [&] { return test::file_content(run_ / "metrics.jsonl").substr(9); };
  EXPECT_EQ(last_line().find("validation_loss"), std::string::npos);
  EXPECT_EQ(train({"train.steps=2"}, /*resume=*/true), RunEnd::finished);
  EXPECT_EQ(reported_steps(), (Steps{1, 2}));
  EXPECT_NE(last_line().find("validation_loss\":1.0}\n"), std::string::npos);
  EXPECT_EQ(train({"train.steps=2"}, /*resume=*/true), RunEnd::nothing_to_do);
}

TEST_F(TrainedRun, WhatCameAfterTheLastCheckpointIsTrainedAgain) {
  EXPECT_EQ(train({"train.report_every=1"}), RunEnd::finished);
  // As a kill after step 6 leaves it.
  for (const char* step : {"5", "6"}) {
    std::ofstream(run_ / "metrics.jsonl", std::ios::app) << "{\"step\":" << step << "}\n";
  }
  EXPECT_EQ(train({"train.report_every=1", "train.steps=5"}, /*resume=*/true), RunEnd::finished);
  EXPECT_EQ(reported_steps(), (Steps{1, 2, 3, 4, 5}));
}

TEST_F(TrainedRun, ARunThatWasKilledBeforeItsFirstCheckpointBeginsAgain) {
  fs::create_directory(run_);
  test::write_content(run_ / ".lock", "");
  test::write_content(run_ / "metrics.jsonl", "{\"step\":1}\n{\"step\":3}\n");
  EXPECT_EQ(train({}, /*resume=*/true), RunEnd::finished);
  EXPECT_EQ(begun_at_, Steps{0});
  EXPECT_EQ(reported_steps(), (Steps{1, 4}));
}

TEST_F(TrainedRun, AnotherRunIsNotResumed) {
  train({});
  EXPECT_EQ(train_error({"train.seed=2"}, true),
            "--resume: train.seed is 2 now, and " + run_.string() + " was trained with 1");
  EXPECT_EQ(train_error({"model.loss=2.0"}, true),
            "--resume: model.loss is 2 now, and " + run_.string() + " was trained with 1");
  write_text("abcdefghijkm");
  EXPECT_TRUE(train_error({"train.steps=6"}, true).starts_with("--resume: the text has changed"));
  EXPECT_NE(train_error({}, false).find("exists already"), std::string::npos);
  EXPECT_EQ(reported_steps(), (Steps{1, 4})) << "what was there is there still";
}

TEST_F(TrainedRun, ANewRunThatCannotBeginLeavesNothing) {
  write_text("");
  EXPECT_THROW(train({}), std::exception);
  EXPECT_FALSE(fs::exists(run_));
}

}  // namespace
}  // namespace carousel
