#include "engine/run/run_metrics.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/files.h"

namespace carousel {
namespace {

using test::file_content;
using test::TemporaryFolder;

class Heard final : public TrainObserver {
 public:
  void on_report(const Report& report) override { heard += "report " + num(report.step) + "; "; }
  void before_save() override { heard += "before save; "; }
  void on_save(std::int64_t step, bool best) override {
    heard += (best ? "best " : "save ") + num(step) + "; ";
  }
  void on_graph_refused(const std::string& why) override { heard += "refused " + why + "; "; }
  std::string heard;

 private:
  static std::string num(std::int64_t step) { return std::to_string(step); }
};

TEST(RunMetrics, ALineHasTheStepItsTermsAndWhatTheEvaluationFound) {
  const TemporaryFolder folder;
  RunMetrics metrics(folder / "metrics.jsonl", -1, nullptr);
  Report report{.step = 4,
                .epoch = 1,
                .tokens = 96,
                .seconds = 0.5,
                .loss = 2.25,
                .terms = {},
                .gradient_norm = 3,
                .learning_rate = 0.125,
                .tokens_per_second = 192,
                .validation = {}};
  metrics.on_report(report);
  report.step = 5;
  report.terms = {{"exact", 2}, {"smooth", 0.25}};
  report.validation = Evaluation{.scores = {{"accuracy", 0.75}, {"macro_f1", 0.5}}};
  metrics.on_report(report);
  EXPECT_EQ(file_content(folder / "metrics.jsonl"),
            R"({"step":4,"epoch":1,"tokens":96,"seconds":0.5,"loss":2.25,"gradient_norm":3.0,)"
            R"("learning_rate":0.125,"tokens_per_second":192.0})"
            "\n"
            R"({"step":5,"epoch":1,"tokens":96,"seconds":0.5,"loss":2.25,"loss_exact":2.0,)"
            R"("loss_smooth":0.25,"gradient_norm":3.0,"learning_rate":0.125,)"
            R"("tokens_per_second":192.0,"validation_accuracy":0.75,"validation_macro_f1":0.5})"
            "\n");
}

TEST(RunMetrics, ABelatedEvaluationBelongsToTheLastLine) {
  const TemporaryFolder folder;
  folder.write("metrics.jsonl", "{\"step\":3,\"loss\":2.0}\n");
  RunMetrics metrics(folder / "metrics.jsonl", 3, nullptr);
  metrics.on_report({.step = 3,
                     .terms = {},
                     .validation = Evaluation{.scores = {{"loss", 0.5}}},
                     .belated = true});
  EXPECT_EQ(file_content(folder / "metrics.jsonl"),
            "{\"step\":3,\"loss\":2.0,\"validation_loss\":0.5}\n");
}

TEST(RunMetrics, AResumedRunGoesOnAfterItsCheckpointWithTheSecondsUpToThere) {
  const std::string lines = "{\"step\":1,\"seconds\":0.5}\n{\"step\":2,\"seconds\":1.25}\n",
                    later = "{\"step\":3,\"seconds\":7.0}\n";
  struct Case {
    std::int64_t last_step;
    std::string kept;
    double seconds;
  };
  for (const Case& c :
       {Case{2, lines, 1.25}, Case{9, lines + later, 7}, Case{0, "", 0}, Case{-1, "", 0}}) {
    const TemporaryFolder folder;
    folder.write("metrics.jsonl", lines + later);
    EXPECT_EQ(RunMetrics(folder / "metrics.jsonl", c.last_step, nullptr).seconds(), c.seconds);
    EXPECT_EQ(file_content(folder / "metrics.jsonl"), c.kept);
  }
}

TEST(RunMetrics, EverythingIsPassedOnToTheNextObserver) {
  const TemporaryFolder folder;
  Heard next;
  RunMetrics metrics(folder / "metrics.jsonl", -1, &next);
  metrics.on_report({.step = 3, .terms = {}, .validation = {}});
  metrics.before_save();
  metrics.on_save(3, true);
  metrics.on_save(4, false);
  metrics.on_graph_refused("of this");
  EXPECT_EQ(next.heard, "report 3; before save; best 3; save 4; refused of this; ");
}

}  // namespace
}  // namespace carousel
