// Groups of parameters: learning rate, weight decay and freezing, in the layout and in training.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/training/optimizer.h"
#include "engine/training/parameter_groups.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::read;

constexpr Initializer kDrawn{.kind = Initializer::Kind::normal, .scale = 1};

/// Four parameters with names of two layers, 200 numbers each, so that padding lies between.
Parameters declared() {
  Parameters parameters;
  for (const char* name : {"in.weight", "out.weight", "in.bias", "out.bias"}) {
    parameters.declare(name, {200}, kDrawn);
  }
  return parameters;
}

class ParameterGroupsOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, ParameterGroupsOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

/// Parameters after three updates with a gradient of 1, and the norm of the last.
struct Trained {
  Trained(const Device& device, const OptimizerConfig& config, Parameters untrained)
      : parameters(std::move(untrained)) {
    parameters.materialize(device, DType::bf16, /*seed=*/3);
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      begun.push_back(read<float>(parameters.weight(i)));
      if (!parameters.gradient(i)) continue;
      copy_from_host(parameters.gradient(i), std::vector<float>(200, 1.0F).data());
    }
    const Optimizer optimizer(config, parameters);
    const Tensor rate = test::tensor_of<float>(device, {1}, {0.125F}),
                 loss = test::tensor_of<float>(device, {1}, {0});
    for (std::int64_t t = 1; t <= 3; ++t) {
      optimizer.step(rate, test::tensor_of<std::int64_t>(device, {1}, {t}), loss);
    }
    norm = read<float>(optimizer.gradient_norm())[0];
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      weights.push_back(read<float>(parameters.weight(i)));
      moments.push_back(optimizer.state_of(i).size());
    }
  }
  Parameters parameters;
  std::vector<std::vector<float>> begun, weights;
  std::vector<std::size_t> moments;
  float norm = 0;
};

const std::vector<OptimizerConfig> kConfigs{{.kind = "sgd", .weight_decay = 0.5},
                                            {.kind = "sgd", .momentum = 0.5, .weight_decay = 0.5},
                                            {.kind = "adamw", .weight_decay = 0.5}};

// The group of one parameter is as if all were trained so: each parameter's bits are those of a run
// in which its settings were everybody's.
TEST_P(ParameterGroupsOn, EachTrainsAsIfItsSettingsWereThoseOfAll) {
  for (const OptimizerConfig& config : kConfigs) {
    const ParameterGroup in{.learning_rate_factor = 0.25, .weight_decay = 0},
        bias{.learning_rate_factor = 2};
    Parameters grouped = declared();
    grouped.set_group("in.*", in);
    grouped.set_group("in.bias", bias);  // the later of two that match
    grouped.set_group("out.bias", bias);
    const Trained got(GetParam(), config, std::move(grouped));
    EXPECT_EQ(got.parameters.stretches().size(), 3);
    EXPECT_FLOAT_EQ(got.norm, std::sqrt(800.0F));
    const std::vector<ParameterGroup> groups{in, {}, bias, bias};
    for (std::size_t i = 0; i < groups.size(); ++i) {
      Parameters alike = declared();
      alike.set_group("*", groups[i]);
      const Trained want(GetParam(), config, std::move(alike));
      EXPECT_EQ(want.parameters.stretches().size(), 1);
      EXPECT_EQ(got.begun[i], want.begun[i]);
      EXPECT_EQ(got.weights[i], want.weights[i]) << got.parameters.name(i);
      EXPECT_NE(got.weights[i], got.begun[i]);
      EXPECT_EQ(got.moments[i], want.moments[i]);
    }
  }
}

TEST_P(ParameterGroupsOn, FrozenOnesStayAndCostNoGradientNormOrMoment) {
  for (const OptimizerConfig& config : kConfigs) {
    Parameters all = declared();
    all.set_group("out*", {.frozen = true});
    const Trained got(GetParam(), config, std::move(all));
    const Trained want(GetParam(), config, declared());
    EXPECT_FLOAT_EQ(got.norm, std::sqrt(400.0F));
    EXPECT_EQ(got.parameters.flat_gradients().size(), 2 * 256);
    EXPECT_EQ(got.parameters.element_count(), 800);
    for (const std::size_t i : {0, 2}) EXPECT_EQ(got.weights[i], want.weights[i]);
    for (const std::size_t i : {1, 3}) {
      EXPECT_EQ(got.weights[i], got.begun[i]);
      EXPECT_EQ(got.moments[i], 0);
      EXPECT_FALSE(got.parameters.gradient(i));
    }
  }
}

TEST_P(ParameterGroupsOn, AFrozenParameterIsAConstantOfTheTape) {
  Parameters parameters;
  parameters.declare("table", {3, 2}, kDrawn, {.group = {.frozen = true}});
  parameters.declare("bias", {2}, kDrawn);
  parameters.materialize(GetParam(), DType::f32, 1);
  Arena arena(GetParam());
  Tape tape(arena, true);
  const Var table = parameters.on(tape, 0);
  EXPECT_FALSE(table.needs_gradient());
  const Var y = embedding(table, test::tensor_of<std::int32_t>(GetParam(), {1}, {2}));
  EXPECT_FALSE(y.needs_gradient());
  EXPECT_TRUE(parameters.on(tape, 1).needs_gradient());
  tape.backward();
  EXPECT_EQ(tape.unreached_parameters().size(), 1U);
}

// A parameter that a step does not even ask for has no gradient in it.
TEST_P(ParameterGroupsOn, AGradientOfAnEarlierStepIsNotKept) {
  Parameters parameters;
  for (const char* name : {"used", "unreached", "unasked"}) parameters.declare(name, {2}, kDrawn);
  parameters.materialize(GetParam(), DType::f32, 1);
  for (std::size_t i = 0; i < 3; ++i) {
    copy_from_host(parameters.gradient(i), std::vector<float>{5, 5}.data());
  }
  Arena arena(GetParam());
  Tape tape(arena, true);
  test::sum(parameters.on(tape, 0));
  parameters.on(tape, 1);
  tape.backward();
  parameters.zero_unreached(tape);
  EXPECT_EQ(read<float>(parameters.gradient(0)), (std::vector<float>{1, 1}));
  EXPECT_EQ(read<float>(parameters.gradient(1)), (std::vector<float>{0, 0}));
  EXPECT_EQ(read<float>(parameters.gradient(2)), (std::vector<float>{0, 0}));
}

TEST(ParameterGroups, RefuseWhatMakesNoSense) {
  Parameters parameters = declared();
  EXPECT_EQ(test::error_text<ConfigError>([&] { parameters.set_group("in.", {}); }),
            "parameters: no name is like 'in.', a group's pattern; they are in.weight, out.weight, "
            "in.bias, out.bias");
  EXPECT_THROW(parameters.set_group("in.*", {.learning_rate_factor = -1}), ConfigError);
  EXPECT_THROW(parameters.set_group("in.*", {.weight_decay = std::nan("")}), ConfigError);
}

TEST(ParameterGroups, AStarStandsForAnyText) {
  const std::map<std::string, std::vector<int>> likes{
      {"*", {1, 1, 1, 1}},         {"in*", {1, 0, 1, 0}},      {"*bias", {0, 0, 1, 1}},
      {"*.*i*", {1, 1, 1, 1}},     {"out.bias", {0, 0, 0, 1}}, {"*t*t*", {0, 1, 0, 0}},
      {"*in.bias*", {0, 0, 1, 0}}, {"**a*s", {0, 0, 1, 1}}};
  for (const auto& [pattern, members] : likes) {
    Parameters parameters = declared();
    parameters.set_group(pattern, {.frozen = true});
    for (std::size_t i = 0; i < members.size(); ++i) {
      EXPECT_EQ(parameters.group(i).frozen, members[i] == 1)
          << parameters.name(i) << " and " << pattern;
    }
  }
}

// A model comes with memory and values; its groups are set after that.
TEST_P(ParameterGroupsOn, MaterialisedParametersKeepTheirValues) {
  const auto declare = [] {
    Parameters parameters = declared();
    parameters.declare("table", {5, 3}, kDrawn, {.row_sparse = true});
    return parameters;
  };
  Parameters before = declare(), after = declare();
  for (Parameters* each : {&before, &after}) {
    for (const char* pattern : {"in.*", "table"}) {
      if (each == &before) each->set_group(pattern, {.frozen = true});
    }
    each->materialize(GetParam(), DType::bf16, 3);
  }
  const auto table = after.weight(4).view<float, 2>();
  group(after, parameter_groups("in.*: frozen; table: frozen"));
  EXPECT_EQ((after.weight(4).view<float, 2>().data), table.data);  // a large one is not held twice
  EXPECT_EQ(after.stretches().size(), before.stretches().size());
  EXPECT_EQ(read<float>(after.flat_weights()), read<float>(before.flat_weights()));
  EXPECT_EQ(host_floats(after.flat_working()), host_floats(before.flat_working()));
  EXPECT_EQ(read<float>(after.weight(4)), read<float>(before.weight(4)));
  EXPECT_EQ(host_floats(after.working(4)), host_floats(before.working(4)));
  EXPECT_EQ(after.row_gradient(4), nullptr);
  EXPECT_EQ(after.flat_gradients().size(), before.flat_gradients().size());
}

TEST(ParameterGroups, AreReadFromAText) {
  EXPECT_TRUE(parameter_groups(" ").empty());
  const ParameterGroups got = parameter_groups(
      "*bias*: weight_decay = 0 ;\n a.b:learning_rate_factor=1e-1,weight_decay=2; c*: frozen;");
  const ParameterGroups want{{"*bias*", {.weight_decay = 0}},
                             {"a.b", {.learning_rate_factor = 0.1, .weight_decay = 2}},
                             {"c*", {.frozen = true}}};
  EXPECT_EQ(got, want);
  for (const char* bad : {"*", "*:", ": frozen", "*: frozen=1", "*: thawed", "*: weight_decay",
                          "*: weight_decay=", "*: weight_decay=-1", "*: weight_decay=nan",
                          "*: weight_decay=1x", "*: frozen,, frozen", ";"}) {
    EXPECT_TRUE(test::error_text<ConfigError>([&] {
                  parameter_groups(bad);
                }).starts_with("optimizer.groups: '"))
        << bad;
  }
}

TEST(Parameters, RowSparseOnesCountInTheMemoryOfTheWeights) {
  const auto bytes = [](bool row_sparse) {
    Parameters parameters;
    parameters.declare("table", {64, 8}, {}, {.row_sparse = row_sparse});
    parameters.declare("weight", {4, 32}, {});
    parameters.materialize(Cpu{}, DType::bf16, /*seed=*/1);
    return parameters.bytes();
  };
  for (const bool row_sparse : {false, true}) {
    EXPECT_EQ(bytes(row_sparse).weights, 4 * (64 * 8 + 4 * 32));
    EXPECT_EQ(bytes(row_sparse).working, 2 * (64 * 8 + 4 * 32));
    EXPECT_EQ(bytes(row_sparse).gradients, 4 * ((row_sparse ? 0 : 64 * 8) + 4 * 32));
  }
}

}  // namespace
}  // namespace carousel
