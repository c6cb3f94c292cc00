// Ops, through the tape, against what PyTorch computed: tests/golden/*.json.
#include <gtest/gtest.h>

#include <numeric>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "engine/ops.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using test::part;

/// A tape on which what a case is given are leaves, with gradients to compare.
class GoldenOps : public testing::TestWithParam<std::tuple<Device, DType>> {
 protected:
  Device device = std::get<0>(GetParam());
  DType dtype = std::get<1>(GetParam());
  Arena arena{device};
  Tape tape{arena, true};
  std::vector<std::pair<std::string, Tensor>> gradients{};

  Tolerance of(const Tolerances& tolerances) const {
    return dtype == DType::f32 ? tolerances.f32 : tolerances.bf16;
  }
  /// A leaf, stored as `type`, whose gradient is kept as `gradient_type`.
  Var leaf(const Golden& golden, const std::string& name, DType type, DType gradient_type) {
    return tape.parameter(golden.tensor(name, device, type), gradient(golden, name, gradient_type));
  }
  /// What flows through a model: a T with a gradient that is T.
  Var input(const Golden& golden, const std::string& name) {
    return leaf(golden, name, dtype, dtype);
  }
  Var matrix(const Golden& golden, const std::string& name) {
    return leaf(golden, name, dtype, DType::f32);
  }
  Var vector(const Golden& golden, const std::string& name) {
    return leaf(golden, name, DType::f32, DType::f32);
  }
  Tensor gradient(const Golden& golden, const std::string& name, DType type) {
    gradients.emplace_back(name, Tensor(device, golden.given.at(name).shape(), type));
    return gradients.back().second;
  }
  /// A loss that sums `output`, each element times a given number.
  static void weigh(const Var& output, const std::vector<double>& by) {
    const GradientTarget d = output.gradient();
    ASSERT_FALSE(d.accumulate);
    test::write(d.tensor, by);
  }
  /// All gradients, times `factor`, against the recorded ones.
  void expect_gradients(const Golden& golden, double factor, const Tolerance& tolerance) const {
    EXPECT_EQ(gradients.size(), golden.gradients.size());
    for (const auto& [name, got] : gradients) {
      EXPECT_TRUE(close(test::scaled(as_double(got), factor),
                        test::scaled(golden.gradients.at(name).values, factor), tolerance))
          << name;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenOps,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values(DType::f32, DType::bf16)),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  name(std::get<1>(each.param));
                         });

/// Layer `index` of [layers, B, H].
Tensor layer_of(const Tensor& all, std::size_t index) {
  return all.slice(static_cast<std::int64_t>(index), 1).reshaped({all.shape()[1], all.shape()[2]});
}

TEST_P(GoldenOps, EveryRecurrentCellInTwoLayersFromAGivenState) {
  constexpr std::size_t kLayers = 2;
  const std::string kNames[] = {"h", "c"};
  for (const CellKind cell : cell_kinds()) {
    if (cell->module.empty()) continue;
    SCOPED_TRACE(cell->name);
    const Golden golden{std::string(cell->name)};
    tape.clear(), arena.reset(), gradients.clear();
    const std::span states(kNames, static_cast<std::size_t>(cell->states));
    std::vector<Tensor> initial, d_initial;
    for (const std::string& state : states) {
      const DType type = state == "h" ? dtype : DType::f32;
      initial.push_back(golden.tensor(state + "_0", device, type));
      d_initial.push_back(gradient(golden, state + "_0", type));
    }
    Var x = input(golden, "x");
    std::vector<RecurrentOutput> layers;
    for (std::size_t l = 0; l < kLayers; ++l) {
      const std::string suffix = "_l" + std::to_string(l);
      std::vector<Var> from;
      for (std::size_t s = 0; s < states.size(); ++s) {
        from.push_back(tape.parameter(layer_of(initial[s], l), layer_of(d_initial[s], l)));
      }
      layers.push_back(recurrent_sequence(cell, x,
                                          {.weight_ih = matrix(golden, "weight_ih" + suffix),
                                           .weight_hh = matrix(golden, "weight_hh" + suffix),
                                           .bias_ih = vector(golden, "bias_ih" + suffix),
                                           .bias_hh = vector(golden, "bias_hh" + suffix)},
                                          from));
      x = layers.back().h;
      for (std::size_t s = 0; s < states.size(); ++s) {
        weigh(layers[l].last[s], part(golden.given.at("d_" + states[s] + "_n").values, l, kLayers));
      }
    }
    weigh(x, golden.given.at("d_output").values);
    tape.backward();
    EXPECT_TRUE(tape.unreached_parameters().empty());

    const Tolerance tolerance = of(kRecurrentForwardTolerance);
    EXPECT_TRUE(close(as_double(x.value()), golden.values.at("output").values, tolerance));
    for (std::size_t l = 0; l < kLayers; ++l) {
      for (std::size_t s = 0; s < states.size(); ++s) {
        EXPECT_TRUE(close(as_double(layers[l].last[s].value()),
                          part(golden.values.at(states[s] + "_n").values, l, kLayers), tolerance));
      }
    }
    expect_gradients(golden, 1, of(kRecurrentBackwardTolerance));
  }
}

double counted(const Golden& golden) {
  double count = 0;
  for (const double target : golden.given.at("target").values) count += target != kIgnoreTarget;
  return count;
}

float label_smoothing(const Golden& golden) { return golden.options.at("label_smoothing"); }

TEST_P(GoldenOps, CrossEntropySmoothedAndNotWithIgnoredTargets) {
  for (const char* name : {"cross_entropy", "cross_entropy_smoothed"}) {
    const Golden golden(name);
    tape.clear(), arena.reset(), gradients.clear();
    const Var logits = input(golden, "logits");
    const Var rows =
        cross_entropy(logits, golden.tensor("target", device, DType::i32), label_smoothing(golden));
    const std::vector<double> each(golden.values.at("rows").values.size(), 1 / counted(golden));
    weigh(rows, each);
    tape.backward();
    const std::vector<double> losses = as_double(rows.value());
    const std::vector<double> mean{std::accumulate(losses.begin(), losses.end(), 0.0) /
                                   counted(golden)};
    const Tolerance tolerance = of(kCrossEntropyTolerance);
    EXPECT_TRUE(close(losses, golden.values.at("rows").values, tolerance)) << name;
    EXPECT_TRUE(close(mean, golden.values.at("mean").values, tolerance)) << name;
    expect_gradients(golden, counted(golden), of(kCrossEntropyBackwardTolerance));
  }
}

TEST_P(GoldenOps, LinearCrossEntropySmoothedAndNotWithIgnoredTargets) {
  for (const char* name : {"linear_cross_entropy", "linear_cross_entropy_smoothed"}) {
    const Golden golden(name);
    tape.clear(), arena.reset(), gradients.clear();
    const Loss loss = linear_cross_entropy(
        input(golden, "hidden"), matrix(golden, "weight"), vector(golden, "bias"),
        golden.tensor("target", device, DType::i32), {.label_smoothing = label_smoothing(golden)});
    const Tolerance tolerance = of(kLinearCrossEntropyTolerance);
    EXPECT_TRUE(close(as_double(loss.rows.value()), golden.values.at("rows").values, tolerance))
        << name;
    EXPECT_TRUE(close(as_double(loss.mean.value()), golden.values.at("mean").values, tolerance))
        << name;
    EXPECT_EQ(as_double(loss.count)[0], counted(golden));
    expect_gradients(golden, counted(golden), of(kLinearCrossEntropyGradientTolerance));
  }
}

}  // namespace
}  // namespace carousel
