// Metrics against cases worked by hand.
#include "engine/model/metric.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/device.h"
#include "tests/support/scripted.h"

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;

class MetricOn : public testing::TestWithParam<Device> {
 protected:
  Arena arena_{GetParam()};
  Tape tape_{arena_, false};
  Pass pass_{tape_};
};
INSTANTIATE_TEST_SUITE_P(Devices, MetricOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(MetricOn, GatheredNumbersComeBackInOrderHoweverManyThereAre) {
  Gathered gathered(GetParam(), DType::i32);
  std::vector<std::int32_t> all;
  for (const std::int64_t count : {1, 4094, 2, 1, 0, 9000, 3}) {  // blocks hold 4096 numbers
    std::vector<std::int32_t> part(static_cast<std::size_t>(count));
    std::iota(part.begin(), part.end(), static_cast<std::int32_t>(all.size()));
    if (count > 0) gathered.add(test::tensor_of(GetParam(), {count}, part));
    all.insert(all.end(), part.begin(), part.end());
  }
  EXPECT_EQ(gathered.values<std::int32_t>(), all);
}

TEST_P(MetricOn, MeanLossWeighsBatchesByTheirCountAndTermsByTheirWeight) {
  MeanLoss metric("nats per token");
  const auto add = [&](std::int64_t counted, float exact, float smooth) {
    const auto term = [&](const char* name, float mean, float weight) {
      return test::scripted_term(pass_, name, test::tensor_of<float>(GetParam(), {1}, {mean}),
                                 weight);
    };
    metric.add({.rows = 100, .counted = counted},
               {.terms = {term("exact", exact, 1), term("smooth", smooth, 0.5F)}});
  };
  add(1, 8, 0);
  add(0, std::nanf(""), std::nanf(""));
  add(3, 4, 16);
  const std::vector<Score> scores = metric.scores();
  ASSERT_EQ(scores.size(), 3U);
  EXPECT_EQ(scores[0].name, "loss");
  EXPECT_EQ(scores[0].unit, "nats per token");
  EXPECT_EQ(scores[0].value, 5 + 0.5 * 12);
  EXPECT_EQ(scores[1].name, "exact");
  EXPECT_EQ(scores[1].value, 5);
  EXPECT_EQ(scores[2].name, "smooth");
  EXPECT_EQ(scores[2].value, 12);
}

TEST_P(MetricOn, MeanLossWeighsBatchesByWhatTheLossCountsIfAsked) {
  MeanLoss metric("nats per prediction", MeanLoss::Weight::loss);
  const auto add = [&](std::int32_t count, float mean) {
    LossTerm term =
        test::scripted_term(pass_, "loss", test::tensor_of<float>(GetParam(), {1}, {mean}), 1);
    term.loss.count = test::tensor_of<std::int32_t>(GetParam(), {1}, {count});
    metric.add({.rows = 100, .counted = 10}, {.terms = {term}});
  };
  add(1, 8);
  add(0, std::nanf(""));
  add(3, 4);
  EXPECT_EQ(metric.scores().front().value, 5);
}

Vocabulary labels(const std::string& names) {
  std::string text =
      "carousel vocabulary 1 char newline=text unknown=no size=" + std::to_string(names.size()) +
      "\n";
  for (const char name : names) text += std::string(1, name) + "\t1\n";
  return Vocabulary::parse(text);
}

/// Logits of which the class has the largest; −1: not numbers.
std::vector<float> logits_for(const std::vector<std::int32_t>& classes, std::size_t count) {
  std::vector<float> logits;
  for (const std::int32_t chosen : classes) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto offset = static_cast<float>(i) - 20;  // the level of a row means nothing
      logits.push_back(chosen < 0 ? std::nanf("")
                                  : offset * 0.001F + (i == static_cast<std::size_t>(chosen)));
    }
  }
  return logits;
}

TEST_P(MetricOn, TokenAccuracyIsOfTheTargetsThatCount) {
  TokenAccuracy metric;
  EXPECT_TRUE(metric.needs_choices() && metric.higher_is_better());
  const auto add = [&](const Ids& target, const Ids& chosen) {
    const Shape shape{2, std::ssize(target) / 2};
    metric.add({.fields = {{"target", test::tensor_of(GetParam(), shape, target)}}},
               {.terms = {}, .choices = test::tensor_of(GetParam(), shape, chosen)});
  };
  add({5, -1, 6, 7}, {5, -1, 5, 7});
  add({-1, 3}, {3, -1});  // no numbers: wrong
  const std::vector<Score> scores = metric.scores();
  ASSERT_EQ(scores.size(), 1U);
  EXPECT_EQ(scores[0].name, "token_accuracy");
  EXPECT_EQ(scores[0].value, 0.5);
}

TEST_P(MetricOn, ClassificationGivesAccuracyF1AndConfusionWorkedByHand) {
  struct Case {
    const char* what;
    std::vector<std::vector<std::int32_t>> truth, predicted;  ///< of each batch
    double accuracy, macro_f1;
    std::vector<std::int64_t> confusion;
  };
  // F1 of a class is 2·right / (rows of it + rows taken for it).
  for (const Case& c : std::vector<Case>{
           {"all right", {{0, 1, 2}}, {{0, 1, 2}}, 1, 1, {1, 0, 0, 0, 1, 0, 0, 0, 1}},
           {"all wrong", {{0, 1, 2}}, {{1, 2, 0}}, 0, 0, {0, 1, 0, 0, 0, 1, 1, 0, 0}},
           // a: 2·2/(3+2), b: 2·1/(2+2), c: 2·1/(1+2)
           {"two batches",
            {{0, 0, 0, 1}, {1, 2}},
            {{0, 0, 1, 1}, {2, 2}},
            4.0 / 6,
            (0.8 + 0.5 + 2.0 / 3) / 3,
            {2, 1, 0, 0, 1, 1, 0, 0, 1}},
           // a: 2·3/(3+4), b: 0; c does not occur and is not averaged
           {"a class that does not occur",
            {{0, 0, 0, 1}},
            {{0, 0, 0, 0}},
            0.75,
            (6.0 / 7) / 2,
            {3, 0, 0, 1, 0, 0, 0, 0, 0}},
           // a: 2·1/(1+1), b: 0; what was taken for c was wrong once
           {"a class that is only predicted",
            {{0, 1}},
            {{0, 2}},
            0.5,
            0.5,
            {1, 0, 0, 0, 0, 1, 0, 0, 0}},
           {"rows that fill up a batch",
            {{0, -1, 1, -1}},
            {{0, 1, 0, 2}},
            0.5,
            (2.0 / 3) / 2,
            {1, 0, 0, 1, 0, 0, 0, 0, 0}},
           // a: 2·1/(2+1), b: 2·1/(1+1); the row is of no class
           {"logits that are not numbers",
            {{0, 0, 1}},
            {{0, -1, 1}},
            2.0 / 3,
            (2.0 / 3 + 1) / 2,
            {1, 0, 0, 0, 1, 0, 0, 0, 0}},
       }) {
    SCOPED_TRACE(c.what);
    Classification metric(labels("abc"));
    EXPECT_TRUE(metric.higher_is_better() && metric.needs_prediction());
    for (std::size_t i = 0; i < c.truth.size(); ++i) {
      const std::int64_t rows = std::ssize(c.truth[i]);
      metric.add(
          {.rows = rows, .fields = {{"label", test::tensor_of(GetParam(), {rows}, c.truth[i])}}},
          {.terms = {},
           .prediction = test::tensor_of(GetParam(), {rows, 3}, logits_for(c.predicted[i], 3))});
    }
    const std::vector<Score> scores = metric.scores();
    ASSERT_EQ(scores.size(), 2U);
    EXPECT_EQ(scores[0].name, metric.decisive().name);
    EXPECT_DOUBLE_EQ(scores[0].value, c.accuracy);
    EXPECT_EQ(scores[1].name, "macro_f1");
    EXPECT_DOUBLE_EQ(scores[1].value, c.macro_f1);
    const ConfusionMatrix confusion = *metric.confusion();
    EXPECT_EQ(confusion.labels, (std::vector<std::string>{"a", "b", "c"}));
    EXPECT_EQ(confusion.counts, c.confusion);
    EXPECT_EQ(confusion.count(0, 1), c.confusion[1]);
  }
}

}  // namespace
}  // namespace carousel
