// What evaluations decide: the best score, when training stops, and how the learning rate falls; in a
// run that is resumed too.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/device.h"
#include "tests/support/scripted_training.h"

namespace carousel {
namespace {

using test::Outcome;
using test::Scenario;
using test::train;

const float kNaN = std::nanf("");

// Evaluations come every two steps.
TEST(EarlyStopping, StopsEarlyAfterExactlySoManyEvaluationsWithoutANewBest) {
  struct Case {
    std::int64_t patience;
    std::vector<float> validation;
    std::int64_t step;
    TrainEnd end;
    std::string best;
    bool higher_is_better = false;
  };
  const std::vector<float> wavy{3, 2, 2.5F, 2.2F, 1, 1.5F, 1.4F, 1.3F, 0.5F, 0.6F};
  const auto early = TrainEnd::early, finished = TrainEnd::finished;
  for (const Case& c : std::vector<Case>{
           {1, wavy, 6, early, "step-4"},
           {2, wavy, 8, early, "step-4"},
           {3, wavy, 16, early, "step-10"},
           {4, wavy, 20, finished, "step-18"},
           {0, wavy, 20, finished, "step-18"},
           {2, {1, 1, 1}, 6, early, "step-2"},  // as good is not better
           {2, {3, kNaN, 2, kNaN, kNaN}, 10, early, "step-6"},
           {2, {0.5F, 0.4F, 0.75F, 0.75F, 0.5F}, 10, early, "step-6", true},
           {1, {-3, -2, -2.5F}, 6, early, "step-4", true},
       }) {
    SCOPED_TRACE(fmt::format("patience {} of {}", c.patience, fmt::join(c.validation, " ")));
    const Outcome got = train(Cpu{}, {.config = {.steps = 20,
                                                 .report_every = 5,
                                                 .evaluate_every = 2,
                                                 .save_every = 0,
                                                 .patience = c.patience},
                                      .validation = c.validation,
                                      .higher_is_better = c.higher_is_better});
    EXPECT_EQ(got.error, "");
    EXPECT_EQ(got.step, c.step);
    EXPECT_EQ(got.end, c.end);
    EXPECT_EQ(got.best, c.best);
    ASSERT_FALSE(got.saved.empty());
    EXPECT_EQ(got.saved.back(), c.step) << "the end is saved";
  }
}

class EarlyStoppingOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, EarlyStoppingOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

// With a gradient of 1, plain SGD's weight is minus the sum of the rates that were really used.
TEST_P(EarlyStoppingOn, APlateauLowersTheRateOfTheStepsAfterIt) {
  const std::vector<double> rates{1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25};
  for (const float sign : {1.0F, -1.0F}) {  // the lower the better, and the higher
    std::vector<float> validation{3, 4, 4, 2, 2, 2, 1, 1, 1};
    for (float& score : validation) score *= sign;
    const Schedule plateau{.kind = "plateau", .learning_rate = 1, .decay = 0.5, .patience = 2};
    const Outcome got =
        train(GetParam(),
              {.config = {.steps = 9, .report_every = 1, .evaluate_every = 1, .save_every = 0},
               .schedule = plateau,
               .validation = validation,
               .higher_is_better = sign < 0});
    ASSERT_EQ(got.reports.size(), rates.size());
    float weight = 0;
    for (std::size_t i = 0; i < rates.size(); ++i) {
      EXPECT_EQ(got.reports[i].learning_rate, rates[i]) << "step " << i + 1;
      weight -= static_cast<float>(rates[i]);
    }
    EXPECT_EQ(got.weight, weight);
  }
}

// A run that is stopped after any step and resumed decides as the unbroken one does: best score,
// patience and plateau go on where they were, at falling, rising and equal scores.
TEST(EarlyStopping, AResumedRunDecidesAsTheUnbrokenOne) {
  const Schedule plateau{.kind = "plateau", .learning_rate = 1, .decay = 0.5, .patience = 2};
  const TrainConfig config{
      .steps = 16, .report_every = 3, .evaluate_every = 2, .save_every = 5, .patience = 3};
  for (const Scenario& scenario : std::vector<Scenario>{
           {.config = config, .schedule = plateau, .validation = {5, 3, 4, 3, 2, 3, 4, 5}},
           {.config = config, .schedule = plateau, .validation = {5, 6, 4, 4, 4, 3, 3, 1}},
           {.config = config,
           .schedule = plateau,
           .validation = {0.5F, 0.25F, 0.75F, 0.5F, 0.5F, 0.5F, 1, 1},
           .higher_is_better = true}}) {
    const Outcome whole = train(Cpu{}, scenario);
    ASSERT_EQ(whole.error, "");
    for (std::int64_t stop = 1; stop < whole.step; ++stop) {
      SCOPED_TRACE(fmt::format("stopped after step {} of {}", stop, whole.step));
      const test::TemporaryFolder folder;
      const Outcome first = train(Cpu{}, scenario, folder.path(), stop);
      EXPECT_EQ(first.end, TrainEnd::interrupted);
      ASSERT_FALSE(first.saved.empty());
      EXPECT_EQ(first.saved.back(), stop);
      const Outcome second = train(Cpu{}, scenario, folder.path());
      EXPECT_EQ(second.end, whole.end);
      EXPECT_EQ(second.step, whole.step);
      EXPECT_EQ(second.weight, whole.weight);
      EXPECT_EQ(second.best, whole.best);
      EXPECT_EQ(second.scalars, whole.scalars);
    }
  }
}

TEST(EarlyStopping, ARunThatWasStoppedEarlyTakesNoFurtherStepUnlessItIsGivenPatience) {
  const test::TemporaryFolder folder;
  Scenario scenario{.config = {.steps = 8,
                               .report_every = 5,
                               .evaluate_every = 1,
                               .save_every = 0,
                               .patience = 2},
                    .validation = {1, 2, 3, 4, 5, 6, 7, 8}};
  EXPECT_EQ(train(Cpu{}, scenario, folder.path()).step, 3);
  const Outcome again = train(Cpu{}, scenario, folder.path());
  EXPECT_EQ(again.end, TrainEnd::early);
  EXPECT_EQ(again.step, 3);
  scenario.config.patience = 4;
  EXPECT_EQ(train(Cpu{}, scenario, folder.path()).step, 5);
}

}  // namespace
}  // namespace carousel
