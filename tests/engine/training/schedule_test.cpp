#include "engine/training/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace carousel {
namespace {

void expect_rates(const Schedule& schedule, const std::vector<std::int64_t>& steps,
                  const std::vector<double>& want) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_NEAR(learning_rate(schedule, steps[i]), want[i], 1e-15) << "step " << steps[i];
  }
}

TEST(Schedule, ConstantIsTheRateFromTheFirstStep) {
  expect_rates({.learning_rate = 0.3}, {1, 2, 1'000'000}, {0.3, 0.3, 0.3});
}

TEST(Schedule, WarmUpGrowsInEqualPartsAndReachesTheRate) {
  for (const char* kind : {"constant", "plateau"}) {
    expect_rates({.kind = kind, .learning_rate = 0.8, .warm_up = 4}, {1, 2, 3, 4, 5},
                 {0.2, 0.4, 0.6, 0.8, 0.8});
  }
}

TEST(Schedule, LinearFallsEvenlyToItsFinalFraction) {
  const Schedule s{
      .kind = "linear", .learning_rate = 1, .steps = 12, .warm_up = 4, .final_fraction = 0.2};
  expect_rates(s, {1, 4, 6, 8, 12, 13, 999}, {0.25, 1, 0.8, 0.6, 0.2, 0.2, 0.2});
}

TEST(Schedule, CosineFallsFromTheRateToItsFinalFraction) {
  // Four steps of warm-up, then a quarter, a half and all of half a turn.
  const Schedule s{
      .kind = "cosine", .learning_rate = 1, .steps = 12, .warm_up = 4, .final_fraction = 0.2};
  const double quarter = 0.2 + 0.8 * 0.5 * (1 + std::sqrt(0.5));
  expect_rates(s, {1, 4, 6, 8, 12, 13, 999}, {0.25, 1, quarter, 0.6, 0.2, 0.2, 0.2});
}

TEST(Schedule, CosineOfARunThatIsAllWarmUpIsTheWarmUp) {
  expect_rates({.kind = "cosine", .learning_rate = 1, .steps = 4, .warm_up = 4}, {1, 2, 3, 4},
               {0.25, 0.5, 0.75, 1});
}

TEST(Schedule, InverseSqrtFallsFromTheEndOfTheWarmUp) {
  const Schedule s{.kind = "inverse_sqrt", .learning_rate = 2, .warm_up = 4};
  expect_rates(s, {1, 2, 4, 16, 100, 400}, {0.5, 1, 2, 1, 0.4, 0.2});
  expect_rates({.kind = "inverse_sqrt", .learning_rate = 2}, {1, 4, 25}, {2, 1, 0.4});
  // The paper's formula, of a model 512 wide and 4,000 steps of warm-up.
  const auto paper = [](double step) {
    return std::pow(512, -0.5) * std::min(std::pow(step, -0.5), step * std::pow(4000, -1.5));
  };
  const Schedule vaswani{
      .kind = "inverse_sqrt", .learning_rate = 1 / std::sqrt(512.0 * 4000), .warm_up = 4000};
  expect_rates(vaswani, {1, 3999, 4000, 4001, 100'000},
               {paper(1), paper(3999), paper(4000), paper(4001), paper(100'000)});
}

TEST(Schedule, StepDecaysAtTheEndOfEachPeriodAfterTheWarmUp) {
  const Schedule s{.kind = "step", .learning_rate = 8, .warm_up = 2, .period = 3, .decay = 0.5};
  expect_rates(s, {1, 2, 3, 5, 6, 8, 9}, {4, 8, 8, 8, 4, 4, 2});
}

// Ten steps are an epoch here.
TEST(Schedule, StepMayDecayEachEpochFromALaterOneOn) {
  // Zaremba's small model: the rate is halved after the fourth epoch and each one after it.
  const Schedule zaremba{
      .kind = "step", .learning_rate = 1, .onset = 40, .period = 10, .decay = 0.5};
  expect_rates(zaremba, {1, 40, 41, 50, 51, 130}, {1, 1, 0.5, 0.5, 0.25, 1.0 / 512});
  // char-rnn: 0.97 of the rate after the tenth epoch and each one after it.
  const Schedule char_rnn{
      .kind = "step", .learning_rate = 2e-3, .onset = 100, .period = 10, .decay = 0.97};
  expect_rates(char_rnn, {100, 101, 110, 111}, {2e-3, 1.94e-3, 1.94e-3, 1.8818e-3});
  // An onset that is no number of periods, after a warm-up.
  const Schedule odd{
      .kind = "step", .learning_rate = 8, .warm_up = 2, .onset = 1, .period = 3, .decay = 0.5};
  expect_rates(odd, {2, 3, 4, 6, 7}, {8, 8, 4, 4, 2});
}

TEST(Plateau, DecaysWhenPatienceRunsOut) {
  const Schedule s{.kind = "plateau", .decay = 0.5, .patience = 2};
  PlateauState state;
  const auto evaluate = [&](double loss) { return state = updated(state, s, loss); };
  EXPECT_EQ(evaluate(10), (PlateauState{10, 0, 1}));
  EXPECT_EQ(evaluate(8), (PlateauState{8, 0, 1}));
  EXPECT_EQ(evaluate(8), (PlateauState{8, 1, 1})) << "no better";
  EXPECT_EQ(evaluate(7), (PlateauState{7, 0, 1}));
  EXPECT_EQ(evaluate(9), (PlateauState{7, 1, 1}));
  EXPECT_EQ(evaluate(NAN), (PlateauState{7, 0, 0.5})) << "NaN is no better";
  EXPECT_EQ(evaluate(INFINITY), (PlateauState{7, 1, 0.5}));
  EXPECT_EQ(evaluate(7.1), (PlateauState{7, 0, 0.25}));
  EXPECT_EQ(evaluate(6), (PlateauState{6, 0, 0.25})) << "the factor does not come back";
}

TEST(Plateau, OtherKindsLeaveTheStateAlone) {
  for (const char* kind : {"constant", "cosine", "step"}) {
    EXPECT_EQ(updated({}, {.kind = kind}, 3), PlateauState{});
  }
}

}  // namespace
}  // namespace carousel
