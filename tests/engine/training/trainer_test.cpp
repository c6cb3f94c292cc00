// What happens at which step of training, and what is told of it.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/device.h"
#include "tests/support/scripted_training.h"

namespace carousel {
namespace {

using test::Outcome;
using test::Scenario;
using test::TemporaryFolder;
using test::train;

const float kNaN = std::nanf("");

class TrainerOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, TrainerOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST(Trainer, EverythingHappensAtItsStep) {
  struct Case {
    TrainConfig config;
    std::vector<float> validation;
    std::string events;
  };
  const std::vector<float> falling{5, 4, 3, 2, 1}, rising{1, 2, 3, 4, 5};
  for (const Case& c : std::vector<Case>{
           // The first step is reported always; the last is reported and saved.
           {{.steps = 5, .report_every = 100, .evaluate_every = 0, .save_every = 0}, {}, "1 5s"},
           {{.steps = 10, .report_every = 4, .evaluate_every = 0, .save_every = 0},
            {},
            "1 4 8 10s"},
           // Whatever is saved, evaluated or sampled is reported before.
           {{.steps = 10, .report_every = 100, .evaluate_every = 0, .save_every = 3},
            {},
            "1 3s 6s 9s 10s"},
           {{.steps = 10,
           .report_every = 100,
           .evaluate_every = 0,
           .save_every = 0,
           .sample_every = 4},
            {},
            "1 4p 8p 10s"},
           // A new best is saved whenever it is found, and linked as such.
           {{.steps = 10, .report_every = 5, .evaluate_every = 4, .save_every = 0},
            falling,
            "1 4vb 5 8vb 10vb"},
           {{.steps = 10, .report_every = 5, .evaluate_every = 4, .save_every = 5},
            rising,
            "1 4vb 5s 8v 10vs"},
           // Without an evaluation on the way there is one at the end.
           {{.steps = 3, .report_every = 5, .evaluate_every = 0, .save_every = 0},
            falling,
            "1 3vb"},
       }) {
    const Outcome got = train(Cpu{}, {.config = c.config, .validation = c.validation});
    EXPECT_EQ(got.events, c.events);
    EXPECT_EQ(got.end, TrainEnd::finished);
    EXPECT_EQ(got.error, "");
  }
}

TEST_P(TrainerOn, AReportTellsOfTheStepsSinceTheLastOne) {
  const Outcome got = train(
      GetParam(), {.config = {.steps = 7, .report_every = 3, .evaluate_every = 0, .save_every = 0},
                   .schedule = {.kind = "step", .learning_rate = 1, .period = 2, .decay = 0.5},
                   .loss = [](std::int64_t n) { return static_cast<float>(1 << n); },
                   // The gradient is the loss.
                   .script = [](Parameters& parameters, Pass& pass, const Batch& batch,
                                const State&) -> Objective {
                     copy(batch["loss"], parameters.on(pass.tape(), 0).gradient().tensor);
                     return {.terms = {test::scripted_term(pass, "loss", batch["loss"])}};
                   }});
  ASSERT_EQ(got.events, "1 3 6 7s");
  const std::vector<double> loss{1, (2 + 4) / 2.0, (8 + 16 + 32) / 3.0, 64},
      rate{1, 0.5, 0.25, 0.125}, norm{1, 4, 32, 64};
  const std::vector<std::int64_t> tokens{1, 1 + 2 + 3, 21, 28}, epoch{0, 0, 1, 1};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(got.reports[i].loss, loss[i]);
    EXPECT_EQ(got.reports[i].learning_rate, rate[i]);
    EXPECT_EQ(got.reports[i].tokens, tokens[i]);
    EXPECT_EQ(got.reports[i].epoch, epoch[i]);
    EXPECT_EQ(got.reports[i].gradient_norm, norm[i]);
    EXPECT_TRUE(got.reports[i].terms.empty()) << "one term is the loss itself";
  }
  EXPECT_EQ(got.weight, -(1 + 2 + 4 / 2 + 8 / 2 + 16 / 4 + 32 / 4 + 64 / 8));
}

// The term of weight 1/4 counts a quarter in the loss, and is reported as it is.
TEST_P(TrainerOn, SeveralTermsAreReportedByNameAndSummedByWeight) {
  const Outcome got =
      train(GetParam(),
            {.config = {.steps = 6, .report_every = 3, .evaluate_every = 2, .save_every = 0},
             .validation = {5, 5, 5},
             .loss = [](std::int64_t n) { return static_cast<float>(n); },
             .script = [](Parameters& parameters, Pass& pass, const Batch& batch,
                          const State&) -> Objective {
               if (pass.training()) test::sum(parameters.on(pass.tape(), 0));
               const Tensor eight = pass.tape().tensor({1}, DType::f32);
               run(eight.device(), Fill<float>{.to = eight.mutable_view<float, 1>(), .value = 8});
               return {.terms = {test::scripted_term(pass, "exact", batch["loss"]),
                                 test::scripted_term(pass, "smooth", eight, 0.25F)}};
             }});
  ASSERT_EQ(got.events, "1 2vb 3 4v 6vs");
  const std::vector<double> exact{0, 1, 2, 3, 4.5};
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const Report& report = got.reports[i];
    EXPECT_EQ(report.loss, exact[i] + 2);
    ASSERT_EQ(report.terms.size(), 2U);
    EXPECT_EQ(report.terms[0].name, "exact");
    EXPECT_EQ(report.terms[0].value, exact[i]);
    EXPECT_EQ(report.terms[1].name, "smooth");
    EXPECT_EQ(report.terms[1].value, 8);
    if (report.validation) {
      EXPECT_EQ(report.validation->scores[0].value, 5 + 2);
    }
  }
}

/// The loss of a batch, under a name that tells which batch it is and which step its random numbers
/// are of. From batch `bad` on the loss is NaN, as it is if a state carries one on.
Scenario diverging(std::int64_t bad, const TrainConfig& config) {
  return {.config = config,
          .loss = [bad](std::int64_t n) { return n + 1 < bad ? 1 : kNaN; },
          .script = [](Parameters& parameters, Pass& pass, const Batch& batch,
                       const State&) -> Objective {
            test::sum(parameters.on(pass.tape(), 0));
            const auto step = pass.random(0).step;
            const Tensor on_device = Tensor::at(pass.tape().device(), {1}, DType::i64,
                                                const_cast<std::int64_t*>(step.data));
            const std::string name = fmt::format("the loss of batch {} in step {}", batch.counted,
                                                 test::read<std::int64_t>(on_device)[0]);
            LossTerm term = test::scripted_term(pass, name, batch["loss"]);
            return {.terms = {term}};
          },
          .graph = false};
}

TEST_P(TrainerOn, ADivergenceNamesStepAndTensorAndSavesNothingMore) {
  struct Case {
    std::int64_t bad;
    TrainConfig config;
    std::string events;  ///< before it was found
    std::int64_t last_saved;
  };
  for (const Case& c : std::vector<Case>{
           {1, {.steps = 9, .report_every = 4, .save_every = 0}, "", 0},
           {2, {.steps = 9, .report_every = 4, .save_every = 0}, "1", 0},
           {3, {.steps = 9, .report_every = 8, .save_every = 2}, "1 2s", 2},
           {6, {.steps = 12, .report_every = 12, .save_every = 4}, "1 4s", 4},
           {9, {.steps = 9, .report_every = 4, .save_every = 4}, "1 4s 8s", 8},
       }) {
    SCOPED_TRACE(fmt::format("batch {}", c.bad));
    const Outcome got = train(GetParam(), diverging(c.bad, c.config));
    EXPECT_EQ(got.error,
              fmt::format("training: the loss or the gradient of step {0} is not a finite number; "
                          "first such tensor: the loss of batch {0} in step {0}. Nothing was saved "
                          "since step {1}; a lower optimizer.learning_rate or clip_norm may help",
                          c.bad, c.last_saved));
    EXPECT_EQ(got.events, c.events);
    EXPECT_EQ(got.saved, c.last_saved == 0 ? std::vector<std::int64_t>()
                                           : std::vector<std::int64_t>{c.last_saved});
    EXPECT_EQ(got.weight, -0.125F * static_cast<float>(c.bad - 1))
        << "the weights are those before that step";
  }
}

// What a reader of the reports may rely on: see RunMetrics.
TEST(Trainer, AStopAddsAReportAndOtherwiseChangesMeansAlone) {
  const Scenario scenario{
      .config = {.steps = 12, .report_every = 4, .evaluate_every = 3, .save_every = 5},
      .validation = {9, 7, 8, 6},
      .loss = [](std::int64_t n) { return static_cast<float>(n * n); }};
  const auto by_step = [](const Outcome& outcome, std::map<std::int64_t, Report> all = {}) {
    for (const Report& report : outcome.reports) {
      EXPECT_TRUE(all.emplace(report.step, report).second) << report.step << " is there twice";
    }
    return all;
  };
  const auto unbroken = by_step(train(Cpu{}, scenario));
  for (std::int64_t stop = 1; stop < scenario.config.steps; ++stop) {
    SCOPED_TRACE(stop);
    const TemporaryFolder folder;
    const auto first = by_step(train(Cpu{}, scenario, folder.path(), stop));
    const auto resumed = by_step(train(Cpu{}, scenario, folder.path()), first);
    EXPECT_EQ(resumed.size(), unbroken.size() + (unbroken.contains(stop) ? 0 : 1));
    double sum = 0, unbroken_sum = 0;
    std::int64_t before = 0, unbroken_before = 0;
    for (const auto& [step, report] : resumed) {
      sum += report.loss * static_cast<double>(step - std::exchange(before, step));
      const auto same = unbroken.find(step);
      if (same == unbroken.end()) {
        EXPECT_EQ(step, stop);
        continue;
      }
      const Report& whole = same->second;
      unbroken_sum += whole.loss * static_cast<double>(step - std::exchange(unbroken_before, step));
      EXPECT_EQ(sum, unbroken_sum) << "the loss is the mean since the line before";
      EXPECT_EQ(report.tokens, whole.tokens);
      EXPECT_EQ(report.epoch, whole.epoch);
      EXPECT_EQ(report.gradient_norm, whole.gradient_norm);
      EXPECT_EQ(report.learning_rate, whole.learning_rate);
      ASSERT_EQ(report.validation.has_value(), whole.validation.has_value());
      if (whole.validation) {
        EXPECT_EQ(report.validation->cost(), whole.validation->cost());
      }
    }
  }
}

TEST(Trainer, AnEvaluationThatIsStillDueIsMadeUpFor) {
  const TrainConfig three{.steps = 3, .report_every = 9, .evaluate_every = 0, .save_every = 0};
  const std::vector<float> validation{9, 9, 4};
  const Outcome unbroken = train(Cpu{}, {.config = three, .validation = validation});
  EXPECT_EQ(unbroken.events, "1 3vb");
  TrainConfig longer = three;
  longer.steps = 8;
  const TemporaryFolder folder;
  EXPECT_EQ(train(Cpu{}, {.config = longer, .validation = validation}, folder.path(), 3).events,
            "1 3s");
  const Outcome again = train(Cpu{}, {.config = three, .validation = validation}, folder.path());
  EXPECT_EQ(again.events, "3vb");
  EXPECT_EQ(again.best, "step-3");
  EXPECT_EQ(again.end, TrainEnd::finished);
  EXPECT_TRUE(again.scalars == unbroken.scalars);
  EXPECT_EQ(train(Cpu{}, {.config = three, .validation = validation}, folder.path()).events, "");
  // Asked to stop in the last step, it has nothing left to do.
  const Outcome at_the_end = train(Cpu{}, {.config = three, .validation = validation},
                                   TemporaryFolder().path(), /*stop_after=*/3);
  EXPECT_EQ(at_the_end.events, "1 3vb");
  EXPECT_EQ(at_the_end.end, TrainEnd::finished);
}

}  // namespace
}  // namespace carousel
