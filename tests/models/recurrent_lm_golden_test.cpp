// The whole model against what PyTorch computed: tests/golden/*_lm*.json.
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "engine/training/optimizer.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "models/recurrent/recurrent_lm.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using Numbers = std::vector<double>;

RecurrentLmConfig config_of(const nlohmann::json& options) {
  return {.vocabulary = options.at("vocabulary"),
          .embed = options.at("embed"),
          .encoder = {.cell = {options.at("cell")},
                      .hidden = options.at("hidden"),
                      .layers = options.at("layers"),
                      .forget_bias = 0},
          .tie_weights = options.value("tie_weights", false),
          .label_smoothing = options.value("label_smoothing", 0.0)};
}

class GoldenRecurrentLm : public testing::TestWithParam<std::tuple<Device, DType, const char*>> {
 protected:
  const Device device = std::get<0>(GetParam());
  const DType dtype = std::get<1>(GetParam());
  const Golden golden{std::get<2>(GetParam())};
  RecurrentLm model{config_of(golden.options), device, dtype, /*seed=*/1};
  const Tensor token = given("token"), target = given("target"), reset = given("reset");
  State state = model.initial_state(token.shape()[2]);
  Arena arena{device};

  /// The model begins with the weights and the state that PyTorch's was given.
  void SetUp() override {
    Parameters& parameters = model.parameters();
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      const Tensor weight = golden.tensor(parameters.name(i), device, DType::f32);
      ASSERT_EQ(weight.shape(), parameters.weight(i).shape()) << parameters.name(i);
      test::write(parameters.weight(i), as_double(weight));
    }
    const auto states = state.tensors.size() / layers();
    EXPECT_EQ(parameters.count() + 3 + states, golden.given.size());  // besides text and state
    parameters.refresh_working();
    for (std::size_t i = 0; i < state.tensors.size(); ++i) {
      test::write(state.tensors[i].value, recorded_state(golden.given, "_0", i));
    }
  }
  std::size_t layers() const { return golden.options.at("layers"); }
  /// The part of h_0, c_0, h_n or c_n, [layers, B, H], for state tensor i: h_l0, c_l0, h_l1, …
  Numbers recorded_state(const std::map<std::string, test::Recorded>& numbers,
                         const std::string& when, std::size_t i) const {
    const std::string part = state.tensors[i].name.substr(0, 1);
    return test::part(numbers.at(part + when).values, i * layers() / state.tensors.size(),
                      layers());
  }

  Tensor given(const char* name) const { return golden.tensor(name, device, DType::i32); }
  Tensor window(const Tensor& all, std::int64_t index) const {
    return all.slice(index, 1).reshaped({all.shape()[1], all.shape()[2]});
  }
  Batch batch(std::int64_t index, bool with_resets) const {
    Batch result;
    result.fields = {{"token", window(token, index)}, {"target", window(target, index)}};
    if (with_resets) result.reset = window(reset, index);
    return result;
  }
  const Numbers& want(const char* name) const { return golden.values.at(name).values; }
  Tolerance forward_tolerance() const {
    return dtype == DType::f32 ? Tolerance{.absolute = 1e-6, .relative = 1e-6}
                               : kRecurrentForwardTolerance.bf16;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenRecurrentLm,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values(DType::f32, DType::bf16),
                                          testing::Values("lstm_lm", "lstm_lm_tied", "gru_lm",
                                                          "tanh_lm", "relu_lm", "linear_lm")),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  name(std::get<1>(each.param)) + "_" + std::get<2>(each.param);
                         });

TEST_P(GoldenRecurrentLm, LogitsAndLossFromAGivenState) {
  Tape tape(arena, /*recording=*/false);
  {
    Pass pass(tape);
    const Objective objective = model.objective(pass, batch(0, /*with_resets=*/false), state);
    const Loss& loss = objective.terms.front().loss;
    EXPECT_TRUE(close(as_double(loss.rows.value()), want("rows"), forward_tolerance()));
    EXPECT_TRUE(close(as_double(loss.mean.value()), want("mean"), forward_tolerance()));
  }
  Numbers logits;
  for (std::int64_t t = 0; t < token.shape()[1]; ++t) {
    Pass pass(tape);
    const Tensor next = model.logits(pass, {"token", window(token, 0).slice(t, 1)}, state);
    for (const double logit : as_double(next)) logits.push_back(logit);
    pass.finish();
  }
  EXPECT_TRUE(close(logits, want("logits"), forward_tolerance()));
}

TEST_P(GoldenRecurrentLm, HiddenStatesGiveTheLogitsFromAGivenState) {
  Tape tape(arena, /*recording=*/false);
  Pass pass(tape);
  const Numbers hidden = as_double(model.hidden(pass, batch(0, /*with_resets=*/false), state));
  const std::string matrix =
      golden.options.value("tie_weights", false) ? "embedding.weight" : "output.weight";
  const Numbers &weight = golden.given.at(matrix).values,
                &bias = golden.given.at("output.bias").values;
  const std::size_t H = golden.options.at("hidden");
  Numbers logits;
  for (std::size_t row = 0; row < hidden.size() / H; ++row) {
    for (std::size_t v = 0; v < bias.size(); ++v) {
      logits.push_back(
          std::inner_product(&hidden[row * H], &hidden[row * H] + H, &weight[v * H], bias[v]));
    }
  }
  EXPECT_TRUE(close(logits, want("logits"), forward_tolerance()));
}

TEST_P(GoldenRecurrentLm, GradientsUnderPyTorchsNamesAndTheFinalState) {
  Tape tape(arena, /*recording=*/true);
  Pass pass(tape);
  model.objective(pass, batch(0, /*with_resets=*/true), state);
  tape.backward();
  pass.finish();
  EXPECT_TRUE(tape.unreached_parameters().empty());

  for (std::size_t i = 0; i < state.tensors.size(); ++i) {
    EXPECT_TRUE(close(
        as_double(state.tensors[i].value), recorded_state(golden.values, "_n", i),
        dtype == DType::f32 ? kRecurrentForwardTolerance.f32 : kRecurrentForwardTolerance.bf16))
        << state.tensors[i].name;
  }
  const Parameters& parameters = model.parameters();
  EXPECT_EQ(parameters.count(), golden.gradients.size());
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    const Numbers& gradient = golden.gradients.at(parameters.name(i)).values;
    const double factor = test::to_unit(gradient);
    EXPECT_TRUE(close(
        test::scaled(as_double(parameters.gradient(i)), factor), test::scaled(gradient, factor),
        dtype == DType::f32 ? kRecurrentBackwardTolerance.f32 : kRecurrentBackwardTolerance.bf16))
        << parameters.name(i);
  }
}

TEST_P(GoldenRecurrentLm, TrainsStepForStepAsPyTorchDoes) {
  const nlohmann::json& options = golden.options;
  const Parameters& parameters = model.parameters();
  const Optimizer optimizer({.kind = "adamw",
                             .weight_decay = options.at("weight_decay"),
                             .clip_norm = options.at("clip_norm")},
                            parameters);
  Tape tape(arena, /*recording=*/true);
  const Tensor rate(device, {1}, DType::f32), step(device, {1}, DType::i64);
  test::write(rate, {options.at("learning_rate")});
  Numbers losses, norms;
  for (std::int64_t t = 1; t <= token.shape()[0]; ++t) {
    tape.clear(), arena.reset();
    Pass pass(tape);
    const Objective objective = model.objective(pass, batch(t - 1, /*with_resets=*/true), state);
    const Loss& loss = objective.terms.front().loss;
    tape.backward();
    parameters.zero_unreached(tape);
    pass.finish();
    copy_from_host(step, &t);
    optimizer.step(rate, step, loss.mean.value());
    losses.push_back(as_double(loss.mean.value())[0]);
    norms.push_back(as_double(optimizer.gradient_norm())[0]);
  }
  EXPECT_TRUE(close(losses, want("losses"), forward_tolerance()));
  EXPECT_TRUE(close(norms, want("norms"), forward_tolerance()));
}

}  // namespace
}  // namespace carousel
