// An evaluation is a mean over what counts, of rows that begin anew where the data says so.
#include "engine/training/evaluation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/scripted.h"

namespace carousel {
namespace {

using test::Given;
using test::ScriptedBatches;
using test::ScriptedModel;

Metrics mean_loss() {
  Metrics metrics;
  metrics.push_back(std::make_unique<MeanLoss>("nats"));
  return metrics;
}

/// An epoch of the batches, again and again.
ScriptedBatches epochs_of(const Device& device, const std::vector<Given>& batches) {
  return ScriptedBatches(
      test::loss_batches(device,
                         [batches](const DataPosition& position) {
                           return batches.at(static_cast<std::size_t>(position.index));
                         }),
      std::ssize(batches));
}

Evaluation evaluate_by(const Device& device, const ScriptedModel::Script& script, BatchSource& data,
                       const MakeMetrics& metrics = mean_loss) {
  ScriptedModel model(device, script);
  Arena arena(device);
  return evaluate(model, data, arena, metrics);
}

class EvaluationOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, EvaluationOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(EvaluationOn, EveryTargetWeighsTheSameAndPaddingNothing) {
  const float no_mean = std::nanf("");
  struct Case {
    std::vector<Given> batches;
    double loss;
    std::int64_t counted;
  };
  for (const Case& c : std::vector<Case>{
           {{{8, 5}}, 8, 5},
           {{{8, 1}, {0, 3}}, 2, 4},
           {{{2, 6}, {4, 1}, {1, 1}}, 17.0 / 8, 8},
           {{{2, 6}, {no_mean, 0}, {4, 2}}, 20.0 / 8, 8},  // nothing counts in the second
       }) {
    ScriptedBatches data = epochs_of(GetParam(), c.batches);
    const Evaluation got = evaluate_by(GetParam(), ScriptedModel::loss_of_batch, data);
    EXPECT_EQ(got.scores.at(0).value, c.loss);
    EXPECT_EQ(got.counted, c.counted);
  }
}

TEST_P(EvaluationOn, OfNothingIsAnError) {
  const float no_mean = std::nanf("");
  const std::vector<std::vector<Given>> nothing{{}, {{no_mean, 0}, {no_mean, 0}}};
  for (const std::vector<Given>& batches : nothing) {
    ScriptedBatches data = epochs_of(GetParam(), batches);
    EXPECT_EQ(test::error_text<Error>(
                  [&] { evaluate_by(GetParam(), ScriptedModel::loss_of_batch, data); }),
              fmt::format("evaluation: the {} batches of the data have no target and no example, "
                          "expected at least 1",
                          batches.size()));
  }
}

// The loss of a batch is the number that the batch before left in the state.
TEST_P(EvaluationOn, StatesAreCarriedAndBeginAnewWhereABatchSaysSo) {
  std::vector<double> seen;
  const auto script = [&](Parameters&, Pass& pass, const Batch& batch,
                          const State& state) -> Objective {
    pass.carry(batch["loss"], state.at("carried").value);
    const LossTerm term = test::scripted_term(pass, "loss", state.at("carried").value);
    seen.push_back(static_cast<double>(host_floats(term.loss.mean.value())[0]));
    return {.terms = {term}};
  };
  // A source need not say that its first batch is the first: nothing was before it.
  ScriptedBatches data = epochs_of(
      GetParam(), {{1, 1, false}, {2, 1, false}, {4, 1, true}, {8, 1, false}, {16, 1, true}});
  const double mean = (0 + 1 + 0 + 4 + 0) / 5.0;
  for (int i = 0; i < 2; ++i) {
    seen.clear();
    EXPECT_EQ(evaluate_by(GetParam(), script, data).scores[0].value, mean);
    EXPECT_EQ(seen, (std::vector<double>{0, 1, 0, 4, 0}));
  }
}

TEST_P(EvaluationOn, AnotherNumberOfRowsHasStatesOfItsOwn) {
  std::vector<std::int64_t> state_rows;
  const auto script = [&](Parameters&, Pass& pass, const Batch& batch,
                          const State& state) -> Objective {
    state_rows.push_back(state.at("carried").value.size());
    return {.terms = {test::scripted_term(pass, "loss", batch["loss"])}};
  };
  const auto make = test::loss_batches(GetParam(), [](const DataPosition&) { return Given{}; });
  ScriptedBatches data(
      [&](const DataPosition& position) {
        Batch batch = make(position);
        batch.rows = position.index < 2 ? 3 : 1;
        return batch;
      },
      4);
  evaluate_by(GetParam(), script, data);
  EXPECT_EQ(state_rows, (std::vector<std::int64_t>{3, 3, 1, 1}));
}

TEST_P(EvaluationOn, ReadsTheFirstEpochWhereverTheDataStands) {
  ScriptedBatches data(
      test::loss_batches(GetParam(),
                         [](const DataPosition& position) {
                           return Given{static_cast<float>(100 * position.epoch + position.index)};
                         }),
      3);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(evaluate_by(GetParam(), ScriptedModel::loss_of_batch, data).scores[0].value, 1);
    data.seek({.epoch = 4, .index = 2});
  }
}

TEST_P(EvaluationOn, RecordsNothingAndHoldsTheMemoryOfOneBatch) {
  const auto script = [](Parameters& parameters, Pass& pass, const Batch& batch, const State&) {
    EXPECT_FALSE(pass.training());
    EXPECT_FALSE(parameters.on(pass.tape(), 0).needs_gradient());
    EXPECT_FALSE(pass.denominator());
    pass.tape().tensor({1 << 16}, DType::f32);
    return Objective{.terms = {test::scripted_term(pass, "loss", batch["loss"])}};
  };
  ScriptedModel model(GetParam(), script);
  const auto reserved = [&](std::size_t batches) {
    ScriptedBatches data = epochs_of(GetParam(), std::vector<Given>(batches));
    Arena arena(GetParam());
    evaluate(model, data, arena, mean_loss);
    return arena.reserved();
  };
  EXPECT_EQ(reserved(1), reserved(20));
}

/// A metric that asks for the prediction and finds its first number, better the higher.
class Prediction final : public Metric {
 public:
  void add(const Batch&, const Objective& objective) override {
    value_ = static_cast<double>(host_floats(objective.prediction)[0]);
  }
  std::vector<Score> scores() const override { return {{"best", value_}, {"second", 2}}; }
  Score decisive() const override { return {.name = "best"}; }
  bool higher_is_better() const override { return true; }
  bool needs_prediction() const override { return true; }
  std::optional<ConfusionMatrix> confusion() const override {
    return ConfusionMatrix{.labels = {"a"}, .counts = {1}};
  }

 private:
  double value_ = 0;
};

TEST_P(EvaluationOn, TheFirstMetricDecidesAndOnlyWhatIsNeededIsComputed) {
  int predictions = 0;
  const auto script = [&](Parameters&, Pass& pass, const Batch& batch, const State&) {
    Objective objective{.terms = {test::scripted_term(pass, "loss", batch["loss"])}};
    if (pass.wants_prediction()) {
      ++predictions;
      objective.prediction = test::tensor_of<float>(batch["loss"].device(), {1}, {7});
    }
    return objective;
  };
  ScriptedBatches data = epochs_of(GetParam(), {{3}});
  const auto with = [&](bool first) {
    return evaluate_by(GetParam(), script, data, [first] {
      Metrics metrics;
      metrics.push_back(std::make_unique<Prediction>());
      metrics.insert(metrics.begin() + (first ? 1 : 0), std::make_unique<MeanLoss>("nats"));
      return metrics;
    });
  };
  const auto names = [](const Evaluation& evaluation) {
    std::string text;
    for (const Score& score : evaluation.scores) text += score.name + " ";
    return text;
  };
  const Evaluation prediction_first = with(true), loss_first = with(false);
  EXPECT_EQ(names(prediction_first), "best second loss ");
  EXPECT_TRUE(prediction_first.higher_is_better);
  EXPECT_EQ(prediction_first.cost(), -7);
  EXPECT_EQ(names(loss_first), "loss best second ");
  EXPECT_FALSE(loss_first.higher_is_better);
  EXPECT_EQ(loss_first.cost(), 3);
  EXPECT_EQ(prediction_first.find("loss")->value, 3);
  EXPECT_EQ(prediction_first.find("accuracy"), nullptr);
  EXPECT_TRUE(loss_first.confusion && prediction_first.confusion);
  EXPECT_EQ(predictions, 2);

  EXPECT_FALSE(evaluate_by(GetParam(), script, data).confusion);
  EXPECT_EQ(predictions, 2) << "no metric needs one";
}

}  // namespace
}  // namespace carousel
