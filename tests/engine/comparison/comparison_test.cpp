#include "engine/comparison/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/comparison/comparison_report.h"
#include "engine/ops.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/scripted.h"

namespace carousel {
namespace {

constexpr Tolerances kTolerances{.f32 = {.absolute = 1e-6, .relative = 1e-6},
                                 .bf16 = {.absolute = 1e-2, .relative = 1e-2}};

/// A sequence [T, 1, 1] of the given values.
TracedTensor sequence(std::string name, Phase phase, int stage, std::vector<float> values) {
  return {.name = std::move(name),
          .phase = phase,
          .axes = Axes::sequence,
          .stage = stage,
          .tolerance = kTolerances,
          .shape = {static_cast<std::int64_t>(values.size()), 1, 1},
          .values = std::move(values)};
}

TracedTensor number(std::string name, float value) {
  return {.name = std::move(name), .tolerance = kTolerances, .shape = {1}, .values = {value}};
}

TEST(Comparison, EqualTracesHold) {
  Comparison comparison(Rounding::f32);
  const Trace trace{sequence("h", Phase::forward, 0, {1, 0, -3}), number("loss", 2)};
  comparison.add(1, trace, trace);
  EXPECT_TRUE(comparison.holds());
  EXPECT_EQ(comparison.first_wrong(), nullptr);
  EXPECT_EQ(comparison.worst()->largest.excess(), 0);
  EXPECT_EQ(comparison.tensors().size(), 2U);
}

TEST(Comparison, TellsTheFirstAndTheLargestDifference) {
  Comparison comparison(Rounding::f32);
  comparison.add(1, {sequence("h", Phase::forward, 0, {1, 2, 4, 1})},
                 {sequence("h", Phase::forward, 0, {1, 2.5F, 3, 1})});
  const TensorVerdict& h = comparison.tensors()[0];
  ASSERT_FALSE(h.holds());
  EXPECT_EQ(h.first->time, 1);
  EXPECT_EQ(h.first->where, "time step 1, row 0, unit 0");
  EXPECT_EQ(h.first->error(), 0.5);
  EXPECT_EQ(h.first->relative(), 0.25);
  EXPECT_EQ(h.largest.time, 2);
  EXPECT_EQ(h.largest.error(), 1);
  EXPECT_DOUBLE_EQ(h.largest.allowed, h.tolerance.absolute * 4 + h.tolerance.relative * 4);
  ASSERT_EQ(h.worst_by_time.size(), 4U);
  EXPECT_EQ(h.worst_by_time[0], 0);
  EXPECT_GT(h.worst_by_time[2], h.worst_by_time[1]);
}

TEST(Comparison, AToleranceIsMetAndBroken) {
  const float a = 3;
  Comparison within(Rounding::f32), beyond(Rounding::f32);
  const Tolerance t = step_tolerance(number("x", a), Rounding::f32);
  const auto allowed = static_cast<float>((t.absolute + t.relative) * 3);
  within.add(1, {number("x", a)}, {number("x", a - 0.9F * allowed)});
  beyond.add(1, {number("x", a)}, {number("x", a - 1.2F * allowed)});
  EXPECT_TRUE(within.holds());
  EXPECT_FALSE(beyond.holds());
}

TEST(Comparison, TheFirstWrongThingIsFirstInTheOrderOfComputation) {
  // In one stage the time step decides, forwards from the first and backwards from the last.
  Comparison forwards(Rounding::f32);
  forwards.add(
      1,
      {sequence("gate", Phase::forward, 0, {1, 1, 1}), sequence("h", Phase::forward, 0, {1, 1, 1})},
      {sequence("gate", Phase::forward, 0, {1, 1, 2}),
       sequence("h", Phase::forward, 0, {1, 2, 2})});
  EXPECT_EQ(forwards.first_wrong()->name, "h");

  Comparison backwards(Rounding::f32);
  backwards.add(1,
                {sequence("gate i", Phase::backward, 0, {1, 1, 1}),
                 sequence("gate f", Phase::backward, 0, {1, 1, 1})},
                {sequence("gate i", Phase::backward, 0, {2, 2, 1}),
                 sequence("gate f", Phase::backward, 0, {1, 1, 2})});
  EXPECT_EQ(backwards.first_wrong()->name, "gate f");

  // A later stage is later at any time step; a later step of training is later than anything.
  Comparison stages(Rounding::f32);
  const Trace good{sequence("layer 0", Phase::forward, 0, {1, 1}),
                   sequence("layer 1", Phase::forward, 1, {1, 1})};
  stages.add(1, good, good);
  stages.add(2, good,
             {sequence("layer 0", Phase::forward, 0, {1, 2}),
              sequence("layer 1", Phase::forward, 1, {2, 2})});
  stages.add(3, good,
             {sequence("layer 0", Phase::forward, 0, {2, 2}),
              sequence("layer 1", Phase::forward, 1, {1, 1})});
  EXPECT_EQ(stages.first_wrong()->name, "layer 0");
  EXPECT_EQ(stages.first_wrong()->first->step, 2);
  EXPECT_EQ(stages.first_wrong()->first->time, 1);
}

TEST(Comparison, WhatIsNotFiniteFails) {
  const float nan = std::nanf(""), inf = INFINITY;
  const float pairs[][2] = {{nan, 1}, {1, nan}, {nan, nan}, {inf, 1}, {1, inf}, {inf, inf}};
  for (const auto& [a, b] : pairs) {
    Comparison comparison(Rounding::bf16);
    comparison.add(1, {number("x", a)}, {number("x", b)});
    EXPECT_FALSE(comparison.holds()) << a << " " << b;
    EXPECT_EQ(comparison.worst()->largest.excess(), INFINITY) << a << " " << b;
  }
}

TEST(Comparison, ZerosMayDifferByNothing) {
  Comparison same(Rounding::bf16), other(Rounding::bf16);
  same.add(1, {sequence("c", Phase::forward, 0, {0, 0})},
           {sequence("c", Phase::forward, 0, {0, -0.0F})});
  other.add(1, {sequence("c", Phase::forward, 0, {0, 0})},
            {sequence("c", Phase::forward, 0, {0, 1e-30F})});
  EXPECT_TRUE(same.holds());
  EXPECT_FALSE(other.holds());
}

TEST(Comparison, SidesThatRoundAlikeMayDifferByNoBit) {
  const float one = 1, after = std::nextafter(one, 2.0F);
  const float pairs[][2] = {{one, after}, {after, one}, {0, -0.0F}, {0, 1e-45F}, {-one, one}};
  for (const auto& [a, b] : pairs) {
    Comparison same(Rounding::alike), other(Rounding::alike);
    same.add(1, {number("x", a)}, {number("x", a)});
    other.add(1, {number("x", a)}, {number("x", b)});
    EXPECT_TRUE(same.holds()) << a;
    EXPECT_FALSE(other.holds()) << a << " " << b;
  }
  TracedTensor update = number("x", 1);
  update.phase = Phase::update;
  EXPECT_EQ(step_tolerance(update, Rounding::alike).relative, 0);
}

TEST(Comparison, TracesOfDifferentTensorsAreRefused) {
  Comparison comparison(Rounding::f32);
  EXPECT_THROW(comparison.add(1, {number("x", 1)}, {number("y", 1)}), Error);
  EXPECT_THROW(comparison.add(1, {number("x", 1)}, {}), Error);
  const std::string error = test::error_text<Error>([&] {
    comparison.add(4, {sequence("h", Phase::forward, 0, {1, 1})},
                   {sequence("h", Phase::forward, 0, {1})});
  });
  EXPECT_NE(error.find("h [2, 1, 1] on one side and h [1, 1, 1]"), std::string::npos) << error;
}

TEST(Comparison, BothSidesMayBeOffByTheContractOfTheRounding) {
  TracedTensor x = number("x", 1);
  x.rounded_inputs = {.absolute = 0.75e-2};
  EXPECT_DOUBLE_EQ(step_tolerance(x, Rounding::f32).absolute, 2e-6);
  EXPECT_DOUBLE_EQ(step_tolerance(x, Rounding::f32).relative, 2e-6);
  EXPECT_DOUBLE_EQ(step_tolerance(x, Rounding::bf16).absolute, 2e-2);
  EXPECT_DOUBLE_EQ(step_tolerance(x, Rounding::mixed).absolute, 2.5e-2);
  EXPECT_DOUBLE_EQ(step_tolerance(x, Rounding::tf32).absolute, 0.5e-2);
  EXPECT_EQ(step_tolerance(x, Rounding::alike).absolute, 0);
}

/// Training of a row-sparse table and a dense matrix on the same tokens. `scale` multiplies the
/// gradients and not the loss.
struct RowSparseSide {
  RowSparseSide(const Device& device, float scale)
      : model(declared(device),
              [scale](Parameters& parameters, Pass& pass, const Batch& batch, const State&) {
                const Var x = embedding(parameters.on(pass.tape(), 0), batch["token"]);
                const Loss loss = linear_cross_entropy(x, parameters.on(pass.tape(), 1), {},
                                                       batch["target"], {.term_weight = scale});
                return Objective{.terms = {{.name = "loss", .loss = loss}}};
              }),
        data([token = test::tensor_of<std::int32_t>(device, {4}, {5, 2, 5, 9}),
              target =
                  test::tensor_of<std::int32_t>(device, {4}, {0, 1, 2, 0})](const DataPosition&) {
          return Batch{.rows = 1, .fields = {{"token", token}, {"target", target}}, .counted = 4};
        }) {}

  static Parameters declared(const Device& device) {
    const Initializer drawn{.kind = Initializer::Kind::uniform, .scale = 0.5};
    Parameters result;
    result.declare("table", {12, 8}, drawn, {.row_sparse = true});
    result.declare("weight", {3, 8}, drawn);
    result.materialize(device, DType::f32, /*seed=*/1);
    return result;
  }

  test::ScriptedModel model;
  Optimizer optimizer{{.kind = "adam"}, model.parameters()};
  test::ScriptedBatches data;
  TrainingRun run{
      .model = model, .optimizer = optimizer, .data = data, .state = model.initial_state(1)};
  Schedule schedule{.learning_rate = 0.01};
  TracedTraining training{run, {.schedule = schedule}};
};

TEST(CompareStep, RowSparseGradientsAreComparedAndTaken) {
  for (const Device& device : test::devices()) {
    for (const float scale : {1.0F, 2.0F}) {
      RowSparseSide a(Cpu{}, 1), b(device, scale);
      Comparison comparison(Rounding::f32);
      for (int step = 0; step < 2; ++step) compare_step(a.training, b.training, comparison);
      std::map<std::string, bool> holds;
      for (const TensorVerdict& verdict : comparison.tensors()) {
        holds[verdict.name] = verdict.holds();
        if (verdict.name == "gradient of table" && scale != 1) {
          EXPECT_EQ(verdict.first->where, "row 2, column 0");  // the first row with a gradient
        }
      }
      ASSERT_TRUE(holds.contains("gradient of table"));
      EXPECT_EQ(holds["gradient of table"], scale == 1);
      EXPECT_EQ(comparison.holds(), scale == 1);
      EXPECT_TRUE(holds.at("table, new weight"))
          << "both sides update by the first side's gradient";
      EXPECT_TRUE(holds.at("table, exp_avg_sq"));
      EXPECT_LT(drift(a.training, b.training).weights, 1e-6);
    }
  }
}

TEST(ComparisonReport, LeadsWithTheVerdictAndTheFirstWrongThing) {
  Comparison comparison(Rounding::f32);
  comparison.add(3, {sequence("layer 1, gate f", Phase::forward, 0, {1, 1}), number("loss", 1)},
                 {sequence("layer 1, gate f", Phase::forward, 0, {1, -1}), number("loss", 1)});
  const ComparisonReport report{
      .a = "cpu f32", .b = "cuda f32", .steps = 3, .comparison = comparison};
  const std::string text = report_text(report);
  EXPECT_EQ(text.substr(0, text.find('\n')),
            "FAIL  first wrong, in step 3, forward: layer 1, gate f, time step 1, row 0, unit 0");
  const std::string second = text.substr(text.find('\n') + 1);
  EXPECT_EQ(second.find("      cpu f32 1, cuda f32 -1; error 2, relative 2, allowed "), 0U) << text;

  using Rows = std::vector<std::vector<std::string>>;
  const std::string where = "step 3, time step 1, row 0, unit 0";
  Rows rows = report_rows(report);
  ASSERT_EQ(rows.size(), 3U);
  for (std::vector<std::string>& row : rows) EXPECT_NE(std::exchange(row[4], ""), "") << row[1];
  EXPECT_EQ(rows, (Rows{{"FAIL", "layer 1, gate f", "2.0e+00", "2.0e+00", "", where},
                        {"", "  its first", "2.0e+00", "2.0e+00", "", where},
                        {"ok", "loss", "0.0e+00", "0.0e+00", "", ""}}));

  const auto json = nlohmann::json::parse(report_json(report));
  EXPECT_FALSE(json["holds"]);
  EXPECT_EQ(json["first_wrong"]["tensor"], "layer 1, gate f");
  EXPECT_EQ(json["first_wrong"]["time_step"], 1);
  EXPECT_EQ(json["first_wrong"]["error"], 2);
  EXPECT_EQ(json["tensors"].size(), 2U);
  EXPECT_TRUE(json["tensors"][1]["holds"]);
  EXPECT_EQ(json["tensors"][0]["of_tolerance_by_time_step"].size(), 2U);
}

TEST(ComparisonReport, WritesNumbersThatAreNone) {
  Comparison comparison(Rounding::f32);
  comparison.add(1, {number("loss", 1)}, {number("loss", std::nanf(""))});
  const auto json = nlohmann::json::parse(
      report_json({.a = "a", .b = "b", .steps = 1, .comparison = comparison}));
  EXPECT_EQ(json["first_wrong"]["b"], "nan");
  EXPECT_EQ(json["first_wrong"]["of_tolerance"], "inf");
}

}  // namespace
}  // namespace carousel
