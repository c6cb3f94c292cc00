// Ops, through the tape, against what PyTorch computed: tests/golden/*.json.
#include <gtest/gtest.h>

#include <numeric>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "engine/ops.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/layer_norm/layer_norm.h"
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
const auto devices_and_types = [] {
  return testing::Combine(testing::ValuesIn(test::devices()),
                          testing::Values(DType::f32, DType::bf16));
};
const auto device_and_type = [](const auto& each) {
  return test::device_name(std::get<0>(each.param)) + "_" + name(std::get<1>(each.param));
};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenOps, devices_and_types(), device_and_type);

/// Entry `index` of [n, B, H].
Tensor entry(const Tensor& all, std::size_t index) {
  return all.slice(static_cast<std::int64_t>(index), 1).reshaped({all.shape()[1], all.shape()[2]});
}

/// Two layers of a cell, each in one direction or both, as a module of torch.nn runs them. PyTorch
/// numbers directions from below and the forward one first, and joins their states in one tensor.
struct Recurrence {
  static constexpr std::size_t kLayers = 2;

  CellKind cell = nullptr;
  std::size_t directions = 1;  ///< of each layer
  Tensor lengths{};            ///< of a packed sequence's rows, else empty
  std::vector<std::string> states{"h"};
  std::vector<Tensor> initial{}, d_initial{};  ///< of each state, [all(), B, n]

  std::size_t all() const { return kLayers * directions; }
  bool reverse(std::size_t index) const { return index % directions == 1; }
};

class GoldenRecurrence : public GoldenOps {
 protected:
  Recurrence recurrence(const Golden& golden) {
    Recurrence r{.cell = cell_kind(golden.options.at("cell").get<std::string>())};
    if (golden.options.value("bidirectional", false)) r.directions = 2;
    if (golden.given.contains("lengths")) {
      r.lengths = golden.tensor("lengths", device, DType::i32);
    }
    if (r.cell->states > 1) r.states.emplace_back("c");
    for (const std::string& state : r.states) {
      const DType type = state == "h" ? dtype : DType::f32;
      r.initial.push_back(golden.tensor(state + "_0", device, type));
      r.d_initial.push_back(gradient(golden, state + "_0", type));
    }
    return r;
  }
  RecurrentOutput direction(const Golden& golden, const Recurrence& r, Var x, std::size_t index) {
    const std::string suffix =
        "_l" + std::to_string(index / r.directions) + (r.reverse(index) ? "_reverse" : "");
    RecurrentParameters parameters{.weight_ih = matrix(golden, "weight_ih" + suffix),
                                   .weight_hh = matrix(golden, "weight_hh" + suffix),
                                   .bias_ih = vector(golden, "bias_ih" + suffix),
                                   .bias_hh = vector(golden, "bias_hh" + suffix)};
    if (golden.given.contains("weight_hr" + suffix)) {
      parameters.weight_hr = matrix(golden, "weight_hr" + suffix);
    }
    std::vector<Var> from;
    for (std::size_t s = 0; s < r.states.size(); ++s) {
      from.push_back(tape.parameter(entry(r.initial[s], index), entry(r.d_initial[s], index)));
    }
    return recurrent_sequence(
        r.cell, x, parameters, from,
        {.rows = {.begin = {}, .end = r.lengths}, .reverse = r.reverse(index)});
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenRecurrence, devices_and_types(), device_and_type);

/// Every cell that PyTorch has, and then what its modules have besides.
std::vector<std::string> recurrences() {
  std::vector<std::string> names;
  for (const CellKind cell : cell_kinds()) {
    if (!cell->module.empty()) names.emplace_back(cell->name);
  }
  for (const std::string cell : {"lstm", "gru", "tanh"}) {
    for (const char* kind : {"_bidirectional", "_packed", "_packed_bidirectional"}) {
      names.push_back(cell + kind);
    }
  }
  names.insert(names.end(), {"lstm_projected", "lstm_projected_bidirectional",
                             "lstm_projected_packed_bidirectional"});
  return names;
}

TEST_P(GoldenRecurrence, TwoLayersOfEveryKindFromAGivenState) {
  for (const std::string& name : recurrences()) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    tape.clear(), arena.reset(), gradients.clear();
    const Recurrence r = recurrence(golden);
    Var x = input(golden, "x");
    std::vector<RecurrentOutput> outputs;
    while (outputs.size() < r.all()) {
      const Var below = x;
      outputs.push_back(direction(golden, r, below, outputs.size()));
      x = outputs.back().h;
      if (r.directions == 1) continue;
      outputs.push_back(direction(golden, r, below, outputs.size()));
      x = concatenate(x, outputs.back().h);
    }
    const auto state = [&](const auto& numbers, const std::string& whole, std::size_t i) {
      return part(numbers.at(whole).values, i, r.all());
    };
    for (std::size_t i = 0; i < r.all(); ++i) {
      for (std::size_t s = 0; s < r.states.size(); ++s) {
        weigh(outputs[i].last[s], state(golden.given, "d_" + r.states[s] + "_n", i));
      }
    }
    weigh(x, golden.given.at("d_output").values);
    tape.backward();
    EXPECT_TRUE(tape.unreached_parameters().empty());

    const Tolerance tolerance = of(kRecurrentForwardTolerance);
    EXPECT_TRUE(close(as_double(x.value()), golden.values.at("output").values, tolerance));
    for (std::size_t i = 0; i < r.all(); ++i) {
      for (std::size_t s = 0; s < r.states.size(); ++s) {
        EXPECT_TRUE(close(as_double(outputs[i].last[s].value()),
                          state(golden.values, r.states[s] + "_n", i), tolerance))
            << r.states[s] << " of direction " << i;
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

TEST_P(GoldenOps, LayerNormWithGainAndBias) {
  const Golden golden("layer_norm");
  const Var y = layer_norm(input(golden, "x"), vector(golden, "weight"), vector(golden, "bias"),
                           golden.options.at("epsilon"));
  weigh(y, golden.given.at("d_output").values);
  tape.backward();
  EXPECT_TRUE(close(as_double(y.value()), golden.values.at("output").values,
                    of(kLayerNormForwardTolerance)));
  expect_gradients(golden, 1, of(kLayerNormBackwardTolerance));
}

TEST_P(GoldenOps, EveryActivation) {
  for (const auto& [name, kind] : activations()) {
    SCOPED_TRACE(name);
    const Golden golden("activation_" + std::string(name));
    tape.clear(), arena.reset(), gradients.clear();
    const Var y = activation(input(golden, "x"), kind);
    weigh(y, golden.given.at("d_output").values);
    tape.backward();
    EXPECT_TRUE(close(as_double(y.value()), golden.values.at("output").values,
                      of(kActivationForwardTolerance)));
    expect_gradients(golden, 1, of(kActivationBackwardTolerance));
  }
}

}  // namespace
}  // namespace carousel
