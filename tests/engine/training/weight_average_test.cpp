// NT-ASGD: when averaging begins, what is averaged, and what evaluation and a resumed run see.
#include "engine/training/weight_average.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/device.h"
#include "tests/support/golden.h"
#include "tests/support/scripted_training.h"

namespace carousel {
namespace {

using test::Outcome;
using test::read;
using test::Scenario;

TEST(AverageTrigger, ComparesWithTheBestOfAllButTheLastEvaluations) {
  struct Case {
    std::int64_t n;
    std::vector<double> costs;
    std::int64_t first;  ///< evaluation, from 1
  };
  for (const Case& c :
       std::vector<Case>{{0, {1, 2, 3, 4, 5, 6}, 0},   // never
                         {1, {5, 6, 7}, 3},            // 7 > 5; of 6, the last one, nothing is said
                         {1, {5, 4, 4.5, 4, 3}, 0},    // 4.5 < 5, then 4 is no more than 4
                         {2, {3, 2.5, 2, 1, 2.4}, 0},  // 2.4 > 1, but that is too recent
                         {2, {3, 4, 3, 3.1}, 4},       // 3.1 > 3 of the first
                         {2, {3, 1, 2, 2, 2, 2}, 5},   // 2 > min(3, 1)
                         {5, {9, 8, 7, 6, 5, 4, 3, 2, 1}, 0},
                         {5, {1, 2, 2, 2, 2, 2, 2}, 7},
                         {2, {NAN, 3, NAN, 4, NAN, 5}, 6}}) {
    AverageTrigger trigger;
    for (std::size_t i = 0; i < c.costs.size(); ++i) {
      trigger = updated(trigger, c.n, c.costs[i], static_cast<std::int64_t>(i + 1));
      EXPECT_LE(static_cast<std::int64_t>(trigger.recent.size()), c.n);
    }
    EXPECT_EQ(trigger.first, c.first) << fmt::format("n {}, {}", c.n, fmt::join(c.costs, " "));
  }
}

TEST(AverageTrigger, DoesNotEndAgain) {
  const AverageTrigger begun{.first = 3};
  EXPECT_EQ(updated(begun, 2, -100, 9), begun);
}

/// In training the gradient is 1; an evaluation finds the weight.
Objective weight_as_score(Parameters& parameters, Pass& pass, const Batch& batch, const State&) {
  const Var weight = parameters.on(pass.tape(), 0);
  if (pass.training()) test::sum(weight);
  return {.terms = {
              test::scripted_term(pass, "loss", pass.training() ? batch["loss"] : weight.value())}};
}

/// Steps of −1/8; the higher the weight the better, so that every evaluation is worse than all before
/// it. Evaluated after every second step, the third begins the average: after step 6.
Scenario falling() {
  return {.config = {.steps = 16, .report_every = 3, .evaluate_every = 2, .save_every = 5},
          .optimizer = {.kind = "sgd", .average_after = 1},
          .validation = std::vector<float>(8),
          .higher_is_better = true,
          .script = weight_as_score};
}

class AveragingOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, AveragingOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(AveragingOn, EvaluationSeesTheMeanAndTrainingGoesOnWithTheWeights) {
  const Outcome got = test::train(GetParam(), falling());
  ASSERT_EQ(got.error, "");
  EXPECT_EQ(got.scalars.integer("average.first"), 6);
  std::int64_t evaluations = 0;
  for (const Report& report : got.reports) {
    if (!report.validation) continue;
    ++evaluations;
    // From step 6 to this one, which an evaluation first sees after step 8.
    const auto t = static_cast<double>(report.step);
    const double steps = report.step <= 6 ? t : (6 + t) / 2;
    EXPECT_NEAR(report.validation->scores.front().value, -steps / 8, 1e-6) << report.step;
    EXPECT_EQ(report.averaged, report.step <= 6 ? 0 : report.step - 5);
  }
  EXPECT_EQ(evaluations, 8);
  EXPECT_EQ(got.weight, -2.0F);
}

TEST_P(AveragingOn, GraphsGiveTheBitsOfEagerSteps) {
  Scenario eager = falling();
  eager.graph = false;
  const Outcome one = test::train(GetParam(), falling()), other = test::train(GetParam(), eager);
  ASSERT_EQ(one.reports.size(), other.reports.size());
  for (std::size_t i = 0; i < one.reports.size(); ++i) {
    if (!one.reports[i].validation) continue;
    EXPECT_EQ(one.reports[i].validation->scores.front().value,
              other.reports[i].validation->scores.front().value);
  }
}

// Stopped before, at and after the evaluation that begins the average.
TEST_P(AveragingOn, AResumedRunAveragesAsTheUnbrokenOne) {
  const Outcome whole = test::train(GetParam(), falling());
  for (std::int64_t stop = 1; stop < whole.step; ++stop) {
    SCOPED_TRACE(fmt::format("stopped after step {}", stop));
    const test::TemporaryFolder folder;
    test::train(GetParam(), falling(), folder.path(), stop);
    const Outcome second = test::train(GetParam(), falling(), folder.path());
    ASSERT_EQ(second.error, "");
    EXPECT_EQ(second.weight, whole.weight);
    EXPECT_EQ(second.average, whole.average);
    EXPECT_EQ(second.scalars, whole.scalars);
    EXPECT_EQ(second.reports.back().validation->scores.front().value,
              whole.reports.back().validation->scores.front().value);
  }
}

// Every kind of parameter: two groups, one frozen, one row-sparse, with bf16 copies.
TEST_P(AveragingOn, ExchangeGivesAllParametersTheirMeanAndThenTheirBitsBack) {
  Parameters parameters;
  const Initializer drawn{.kind = Initializer::Kind::normal, .scale = 1};
  for (const char* name : {"a", "b", "frozen"}) parameters.declare(name, {3, 70}, drawn);
  parameters.declare("table", {9, 5}, drawn, {.row_sparse = true});
  parameters.set_group("frozen", {.frozen = true});
  parameters.set_group("b", {.weight_decay = 0});
  parameters.materialize(GetParam(), DType::bf16, 1);
  AveragedWeights average(parameters, true);
  const auto everything = [&] {
    std::vector<std::vector<float>> all;
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      all.push_back(read<float>(parameters.weight(i)));
      all.push_back(host_floats(parameters.working(i)));
    }
    return all;
  };
  const auto before = everything();
  average.exchange();
  EXPECT_EQ(everything(), before) << "not begun";
  average.begin(1);
  for (const std::size_t i : {0, 1, 3}) {  // as if updated
    test::write(parameters.weight(i), std::vector<double>(before[2 * i].size(), 3));
  }
  parameters.refresh_working();
  const auto updated = everything();
  const auto step = test::tensor_of<std::int64_t>(GetParam(), {1}, {2});
  average.update(step, test::tensor_of<std::int32_t>(GetParam(), {1}, {1}));
  average.exchange();
  const auto mean = everything();
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    for (std::size_t j = 0; j < mean[2 * i].size(); ++j) {
      const float own = before[2 * i][j];
      const float want = parameters.name(i) == "frozen" ? own : own + (3 - own) / 2;
      ASSERT_EQ(mean[2 * i][j], want) << parameters.name(i);
      ASSERT_EQ(mean[2 * i + 1][j], static_cast<float>(bf16(want))) << parameters.name(i);
    }
  }
  average.exchange();
  EXPECT_EQ(everything(), updated);
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    EXPECT_EQ(read<float>(average.of(i)), mean[2 * i]) << parameters.name(i);
  }
}

TEST(Averaging, ThatIsOffTakesNoMemoryAndLeavesNoTraceInACheckpoint) {
  Scenario off = falling();
  off.optimizer.average_after = 0;
  const Outcome got = test::train(Cpu{}, off);
  EXPECT_FALSE(got.scalars.contains("average.first"));
  EXPECT_EQ(got.reports.back().validation->scores.front().value, -2.0);
}

}  // namespace
}  // namespace carousel
