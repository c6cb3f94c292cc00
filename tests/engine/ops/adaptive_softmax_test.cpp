#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/ops.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/reference/adaptive_softmax.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"
#include "tests/support/tensors.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using test::of;
using test::on_all_devices_and_types;
using Numbers = std::vector<double>;
using Problem = reference::AdaptiveSoftmax;

/// Random numbers as T stores them.
template <class T>
Problem random_problem(std::size_t rows, bool biased = true) {
  Problem p{.rows = rows,
            .width = 12,
            .shortlist = 5,
            .hidden = {},
            .head = {},
            .bias = {},
            .tails = {},
            .target = {}};
  std::mt19937 random(static_cast<unsigned>(rows));
  std::uniform_real_distribution<double> uniform(-1, 1);
  const auto draw = [&](std::size_t count) {
    Numbers result;
    for (std::size_t i = 0; i < count; ++i) {
      result.push_back(static_cast<double>(static_cast<T>(uniform(random))));
    }
    return result;
  };
  p.hidden = draw(rows * p.width);
  p.head = draw((p.shortlist + 2) * p.width);
  p.tails = {{.first = 5, .words = 9, .width = 6, .projection = draw(6 * 12), .weight = draw(54)},
             {.first = 14, .words = 40, .width = 3, .projection = draw(36), .weight = draw(120)}};
  if (biased) {
    for (std::size_t j = 0; j < p.shortlist + 2; ++j) {
      p.bias.push_back(static_cast<double>(static_cast<float>(uniform(random))));
    }
  }
  for (std::size_t n = 0; n < rows; ++n) {
    const auto word = static_cast<std::int32_t>(random() % p.vocabulary());
    p.target.push_back(n % 7 == 3 ? kIgnoreTarget : word);
  }
  return p;
}

/// A problem's numbers as leaves of a tape; gradients of weights are Accumulator<T>.
template <class T>
struct OutputLayer {
  OutputLayer(const Device& device, const Problem& p, bool recording = true)
      : arena(device), tape(arena, recording), device_(device) {
    const auto rows = static_cast<std::int64_t>(p.rows), width = static_cast<std::int64_t>(p.width);
    const auto head = static_cast<std::int64_t>(p.shortlist + p.tails.size());
    std::vector<std::int64_t> cutoffs;
    hidden = leaf<T, T>(p.hidden, {rows, width});
    parameters.head = leaf<T, Accumulator<T>>(p.head, {head, width});
    if (!p.bias.empty()) {
      parameters.head_bias = leaf<Accumulator<T>, Accumulator<T>>(p.bias, {head});
    }
    for (const reference::AdaptiveTail& tail : p.tails) {
      const auto narrow = static_cast<std::int64_t>(tail.width);
      cutoffs.push_back(static_cast<std::int64_t>(tail.first));
      parameters.tails.push_back(
          {.projection = leaf<T, Accumulator<T>>(tail.projection, {narrow, width}),
           .weight = leaf<T, Accumulator<T>>(tail.weight,
                                             {static_cast<std::int64_t>(tail.words), narrow})});
    }
    parameters.cutoffs = adaptive_cutoffs(cutoffs, static_cast<std::int64_t>(p.vocabulary()));
    target = test::tensor_of(device, {rows}, p.target);
  }

  template <class Value, class D>
  Var leaf(const Numbers& values, Shape shape) {
    const Tensor d(device_, shape, dtype_of<D>());
    copy_from_host(d, std::vector<D>(values.size(), static_cast<D>(7.0F)).data());
    return tape.parameter(test::tensor_of(device_, shape, test::stored<Value>(values)), d);
  }
  static Numbers numbers(const Tensor& tensor) {
    if (tensor.dtype() != DType::f64) return as_double(tensor);
    return test::read<double>(tensor);
  }

  Arena arena;
  Tape tape;
  Device device_;
  Var hidden;
  AdaptiveParameters parameters;
  Tensor target;
};

Numbers losses(const Problem& p) {
  Numbers result;
  for (std::size_t n = 0; n < p.rows; ++n) {
    const std::int32_t word = p.target[n];
    const Numbers log_p = reference::adaptive_log_probabilities(p, n);
    result.push_back(word == kIgnoreTarget ? 0 : -log_p[static_cast<std::size_t>(word)]);
  }
  return result;
}

double counted(const Problem& p) {
  double count = 0;
  for (const std::int32_t word : p.target) count += word == kIgnoreTarget ? 0 : 1;
  return count;
}

double sum(const Numbers& numbers) {
  double result = 0;
  for (const double x : numbers) result += x;
  return result;
}

/// All gradients, times `factor`, against the oracle's.
template <class T>
void expect_gradients(const OutputLayer<T>& got, const reference::AdaptiveGradients& want,
                      double factor, const Tolerance& tolerance) {
  const auto expect = [&](const Var& var, const Numbers& numbers, const char* name) {
    EXPECT_TRUE(close(test::scaled(OutputLayer<T>::numbers(var.d()), factor),
                      test::scaled(numbers, factor), tolerance))
        << name;
  };
  expect(got.hidden, want.hidden, "hidden");
  expect(got.parameters.head, want.head, "head");
  if (got.parameters.head_bias.present()) expect(got.parameters.head_bias, want.bias, "bias");
  for (std::size_t k = 0; k < want.weight.size(); ++k) {
    expect(got.parameters.tails[k].projection, want.projection[k], "projection");
    expect(got.parameters.tails[k].weight, want.weight[k], "weight");
  }
}

TEST(AdaptiveSoftmaxRule, LossesAndGradientsAreTheOraclesOnEveryDevice) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const std::size_t rows : {0U, 1U, 40U, 200U}) {
      const Problem p = random_problem<T>(rows, rows != 40);
      OutputLayer<T> layer(device, p);
      const Loss loss = adaptive_softmax(layer.hidden, layer.parameters, layer.target);
      layer.tape.backward();
      EXPECT_TRUE(layer.tape.unreached_parameters().empty());
      const Tolerance losses_within = std::is_same_v<T, bf16>
                                          ? Tolerance{.absolute = 2e-2, .relative = 2e-2}
                                          : kLinearCrossEntropyTolerance.f32;
      const Numbers want = losses(p);
      EXPECT_TRUE(close(as_double(loss.rows.value()), want, losses_within));
      const double count = counted(p), mean = count == 0 ? 0 : sum(want) / count;
      EXPECT_EQ(as_double(loss.count)[0], count);
      EXPECT_TRUE(close(as_double(loss.mean.value()), Numbers{mean}, losses_within));
      if (count == 0) continue;
      expect_gradients(layer, reference::adaptive_gradients(p, 1 / count), count,
                       of<T>(kLinearCrossEntropyGradientTolerance));
    }
  });
}

TEST(AdaptiveSoftmaxRule, IsTheDerivativeOfItsMean) {
  constexpr double kStep = 1e-5;
  Problem p = random_problem<double>(9);
  const auto mean = [&p] {
    OutputLayer<double> layer(Cpu{}, p, /*recording=*/false);
    return test::read<double>(
        adaptive_softmax(layer.hidden, layer.parameters, layer.target).mean.value())[0];
  };
  OutputLayer<double> layer(Cpu{}, p);
  adaptive_softmax(layer.hidden, layer.parameters, layer.target);
  const auto expect_slopes = [&](const Var& var, Numbers& values) {
    Numbers slope;
    for (double& x : values) {
      const double middle = x;
      x = middle + kStep;
      const double above = mean();
      x = middle - kStep;
      slope.push_back((above - mean()) / (2 * kStep));
      x = middle;
    }
    EXPECT_TRUE(close(test::read<double>(var.d()), slope, {.absolute = 1e-9, .relative = 1e-8}));
  };
  expect_slopes(layer.hidden, p.hidden);
  expect_slopes(layer.parameters.head, p.head);
  expect_slopes(layer.parameters.head_bias, p.bias);
  for (std::size_t k = 0; k < p.tails.size(); ++k) {
    expect_slopes(layer.parameters.tails[k].projection, p.tails[k].projection);
    expect_slopes(layer.parameters.tails[k].weight, p.tails[k].weight);
  }
}

TEST(AdaptiveSoftmaxRule, DividesByADenominatorFromOutsideAndAddsAtASecondUse) {
  for (const Device& device : test::devices()) {
    const Problem p = random_problem<float>(40);
    OutputLayer<float> layer(device, p);
    const Tensor denominator = test::tensor_of<float>(device, {1}, {100});
    adaptive_softmax(layer.hidden, layer.parameters, layer.target, denominator);
    expect_gradients(layer, reference::adaptive_gradients(p, 0.01), 100,
                     kLinearCrossEntropyGradientTolerance.f32);
    const Loss second = adaptive_softmax(layer.hidden, layer.parameters, layer.target, denominator);
    EXPECT_TRUE(close(as_double(second.mean.value()), Numbers{sum(losses(p)) / 100},
                      kLinearCrossEntropyTolerance.f32));
    expect_gradients(layer, reference::adaptive_gradients(p, 0.02), 50,
                     kLinearCrossEntropyGradientTolerance.f32);
  }
}

TEST(AdaptiveSoftmaxRule, LogProbabilitiesAreTheOraclesAndTheLosses) {
  for (const Device& device : test::devices()) {
    const Problem p = random_problem<float>(11);
    OutputLayer<float> layer(device, p, /*recording=*/false);
    const Numbers got = as_double(adaptive_log_probabilities(layer.hidden, layer.parameters));
    Numbers want;
    for (std::size_t n = 0; n < p.rows; ++n) {
      const Numbers row = reference::adaptive_log_probabilities(p, n);
      want.insert(want.end(), row.begin(), row.end());
    }
    EXPECT_TRUE(close(got, want, kLinearCrossEntropyTolerance.f32));
    const Loss loss = adaptive_softmax(layer.hidden, layer.parameters, layer.target);
    const Numbers rows = as_double(loss.rows.value());
    for (std::size_t n = 0; n < p.rows; ++n) {
      if (p.target[n] == kIgnoreTarget) continue;
      const double log_p = got[n * p.vocabulary() + static_cast<std::size_t>(p.target[n])];
      EXPECT_NEAR(rows[n], -log_p, 1e-5);
    }
  }
}

TEST(AdaptiveSoftmaxRule, ATargetOutsideTheVocabularyIsNaN) {
  for (const Device& device : test::devices()) {
    for (const std::int32_t bad : {-2, 54}) {
      Problem p = random_problem<float>(4);
      p.target[2] = bad;
      OutputLayer<float> layer(device, p);
      const Loss loss = adaptive_softmax(layer.hidden, layer.parameters, layer.target);
      const Numbers rows = as_double(loss.rows.value());
      for (std::size_t n = 0; n < 4; ++n) EXPECT_EQ(std::isnan(rows[n]), n == 2) << n;
      EXPECT_TRUE(std::isnan(as_double(loss.mean.value())[0]));
    }
  }
}

class GoldenAdaptive : public testing::TestWithParam<std::tuple<Device, DType>> {};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenAdaptive,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values(DType::f32, DType::bf16)),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  name(std::get<1>(each.param));
                         });

TEST_P(GoldenAdaptive, ValuesAndGradientsArePyTorchs) {
  const auto& [device, dtype] = GetParam();
  for (const char* name : {"adaptive_softmax", "adaptive_softmax_biased"}) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    Arena arena(device);
    Tape tape(arena, true);
    std::vector<std::pair<std::string, Var>> leaves;
    const auto leaf = [&](const std::string& key, DType type, DType gradient) {
      const Tensor d(device, golden.given.at(key).shape(), gradient);
      leaves.emplace_back(key, tape.parameter(golden.tensor(key, device, type), d));
      return leaves.back().second;
    };
    const Var hidden = leaf("hidden", dtype, dtype);
    AdaptiveParameters parameters;
    parameters.head = leaf("head.weight", dtype, DType::f32);
    if (golden.given.contains("head.bias")) {
      parameters.head_bias = leaf("head.bias", DType::f32, DType::f32);
    }
    const std::vector<std::int64_t> cutoffs = golden.options.at("cutoffs");
    for (std::size_t k = 0; k < cutoffs.size(); ++k) {
      const std::string tail = "tail." + std::to_string(k);
      parameters.tails.push_back({leaf(tail + ".0.weight", dtype, DType::f32),
                                  leaf(tail + ".1.weight", dtype, DType::f32)});
    }
    parameters.cutoffs = adaptive_cutoffs(cutoffs, golden.options.at("vocabulary"));
    const Tensor target = golden.tensor("target", device, DType::i32);
    const Loss loss = adaptive_softmax(hidden, parameters, target);
    // In bf16 the projected rows and their gradients are rounded.
    const bool exact = dtype == DType::f32;
    const Tolerance rounded{.absolute = 2e-2, .relative = 2e-2};
    const Tolerance forward = exact ? kLinearCrossEntropyTolerance.f32 : rounded;
    EXPECT_TRUE(close(as_double(loss.rows.value()), golden.values.at("rows").values, forward));
    EXPECT_TRUE(close(as_double(loss.mean.value()), golden.values.at("mean").values, forward));
    const auto count = static_cast<double>(target.size());
    EXPECT_EQ(leaves.size(), golden.gradients.size());
    for (const auto& [key, var] : leaves) {
      EXPECT_TRUE(close(test::scaled(as_double(var.d()), count),
                        test::scaled(golden.gradients.at(key).values, count),
                        exact ? kLinearCrossEntropyGradientTolerance.f32
                              : kLinearCrossEntropyGradientTolerance.bf16))
          << key;
    }
    Tape quiet(arena, false);
    const auto constant = [&](const Var& var) { return quiet.constant(var.value()); };
    AdaptiveParameters fixed = parameters;
    fixed.head = constant(parameters.head);
    fixed.tails.clear();
    if (parameters.head_bias.present()) fixed.head_bias = constant(parameters.head_bias);
    for (const auto& [projection, weight] : parameters.tails) {
      fixed.tails.push_back({constant(projection), constant(weight)});
    }
    EXPECT_TRUE(close(as_double(adaptive_log_probabilities(constant(hidden), fixed)),
                      golden.values.at("log_probabilities").values, forward));
  }
}

}  // namespace
}  // namespace carousel
