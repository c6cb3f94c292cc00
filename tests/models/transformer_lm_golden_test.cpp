// The whole model against what PyTorch computed: tests/golden/transformer_lm*.json.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "models/transformer/transformer_lm.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using Numbers = std::vector<double>;
using Config = TransformerLmConfig;

Config config_of(const nlohmann::json& options) {
  Config config{.vocabulary = options.at("vocabulary"),
                .context = options.at("context"),
                .layers = options.at("layers"),
                .heads = options.at("heads"),
                .kv_heads = options.at("kv_heads"),
                .embed = options.at("embed"),
                .hidden = options.at("hidden")};
  if (options.at("llama")) {
    config.norm = Config::Norm::rms;
    config.positions = Config::Positions::rotary;
    config.feed_forward = Config::FeedForward::swiglu;
    config.bias = false;
  }
  return config;
}

class GoldenTransformerLm : public testing::TestWithParam<std::tuple<Device, DType, const char*>> {
 protected:
  const Device device = std::get<0>(GetParam());
  const DType dtype = std::get<1>(GetParam());
  const Golden golden{std::get<2>(GetParam())};
  TransformerLm model{config_of(golden.options), device, dtype, /*seed=*/1};
  Arena arena{device};
  const Tensor token = golden.tensor("token", device, DType::i32);

  void SetUp() override {
    const Parameters& parameters = model.parameters();
    EXPECT_EQ(parameters.count() + 2, golden.given.size());  // besides the text
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      test::write(parameters.weight(i), golden.given.at(parameters.name(i)).values);
    }
    parameters.refresh_working();
  }
  /// In bf16 every value between the embedding and the loss is rounded, a dozen of them in a row.
  Tolerance tolerance() const {
    return dtype == DType::f32 ? Tolerance{.absolute = 1e-5, .relative = 1e-5}
                               : Tolerance{.absolute = 0.1, .relative = 0.04};
  }
};
INSTANTIATE_TEST_SUITE_P(
    Devices, GoldenTransformerLm,
    testing::Combine(testing::ValuesIn(test::devices()), testing::Values(DType::f32, DType::bf16),
                     testing::Values("transformer_lm", "transformer_lm_llama")),
    [](const auto& each) {
      return test::device_name(std::get<0>(each.param)) + "_" + name(std::get<1>(each.param)) +
             "_" + std::get<2>(each.param);
    });

TEST_P(GoldenTransformerLm, LossAndGradients) {
  Tape tape(arena, /*recording=*/true);
  Pass pass(tape);
  const Batch batch{
      .rows = token.shape()[1],
      .fields = {{"token", token}, {"target", golden.tensor("target", device, DType::i32)}}};
  const Loss loss = model.objective(pass, batch, {}).terms.front().loss;
  tape.backward();
  EXPECT_TRUE(tape.unreached_parameters().empty());
  EXPECT_TRUE(close(as_double(loss.rows.value()), golden.values.at("rows").values, tolerance()));
  EXPECT_TRUE(close(as_double(loss.mean.value()), golden.values.at("mean").values, tolerance()));
  const Parameters& parameters = model.parameters();
  EXPECT_EQ(parameters.count(), golden.gradients.size());
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    const Numbers& gradient = golden.gradients.at(parameters.name(i)).values;
    const double factor = test::to_unit(gradient);
    EXPECT_TRUE(close(test::scaled(as_double(parameters.gradient(i)), factor),
                      test::scaled(gradient, factor), tolerance()))
        << parameters.name(i);
  }
}

TEST_P(GoldenTransformerLm, LogitsStepByStep) {
  const State state = model.decoding_state(token.shape()[1]);
  Tape tape(arena, /*recording=*/false);
  const auto T = static_cast<std::size_t>(token.shape()[0]);
  for (std::size_t t = 0; t < T; ++t) {
    Pass pass(tape);
    const Field step{"token", token.slice(static_cast<std::int64_t>(t), 1)};
    const Numbers logits = as_double(model.logits(pass, step, state));
    pass.finish();
    EXPECT_TRUE(close(logits, test::part(golden.values.at("logits").values, t, T), tolerance()));
  }
}

}  // namespace
}  // namespace carousel
