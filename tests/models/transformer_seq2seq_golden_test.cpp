// The whole model against what PyTorch computed: tests/golden/transformer_seq2seq*.json.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "models/transformer/transformer_seq2seq.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using Numbers = std::vector<double>;
using Config = TransformerSeq2seqConfig;

Config config_of(const nlohmann::json& options) {
  return {.sources = options.at("sources"),
          .vocabulary = options.at("vocabulary"),
          .layers = options.at("layers"),
          .decoder_layers = options.at("decoder_layers"),
          .heads = options.at("heads"),
          .embed = options.at("embed"),
          .hidden = options.at("hidden"),
          .norm_place = options.at("pre") ? Config::NormPlace::pre : Config::NormPlace::post,
          .dropout = 0,
          .label_smoothing = 0};
}

class GoldenTransformerSeq2seq : public testing::TestWithParam<std::tuple<Device, const char*>> {
 protected:
  const Device device = std::get<0>(GetParam());
  const Golden golden{std::get<1>(GetParam())};
  TransformerSeq2seq model{config_of(golden.options), device, DType::f32, /*seed=*/1};
  Arena arena{device};
  const Field source{"source", golden.tensor("source", device, DType::i32),
                     golden.tensor("lengths", device, DType::i32)};
  const Tensor token = golden.tensor("token", device, DType::i32);
  const Tolerance tolerance{.absolute = 1e-5, .relative = 1e-5};

  void SetUp() override {
    const Parameters& parameters = model.parameters();
    EXPECT_EQ(parameters.count() + 4, golden.given.size());  // besides the texts
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      test::write(parameters.weight(i), golden.given.at(parameters.name(i)).values);
    }
    parameters.refresh_working();
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenTransformerSeq2seq,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values("transformer_seq2seq",
                                                          "transformer_seq2seq_pre")),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  std::get<1>(each.param);
                         });

TEST_P(GoldenTransformerSeq2seq, LossAndGradients) {
  Tape tape(arena, /*recording=*/true);
  Pass pass(tape);
  const Batch batch{
      .rows = token.shape()[1],
      .fields = {
          source, {"token", token}, {"target", golden.tensor("target", device, DType::i32)}}};
  const Loss loss = model.objective(pass, batch, {}).terms.front().loss;
  tape.backward();
  EXPECT_TRUE(tape.unreached_parameters().empty());
  EXPECT_TRUE(close(as_double(loss.rows.value()), golden.values.at("rows").values, tolerance));
  EXPECT_TRUE(close(as_double(loss.mean.value()), golden.values.at("mean").values, tolerance));
  const Parameters& parameters = model.parameters();
  EXPECT_EQ(parameters.count(), golden.gradients.size());
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    const Numbers& gradient = golden.gradients.at(parameters.name(i)).values;
    const double factor = test::to_unit(gradient);
    EXPECT_TRUE(close(test::scaled(as_double(parameters.gradient(i)), factor),
                      test::scaled(gradient, factor), tolerance))
        << parameters.name(i);
  }
}

// Each source has two rows, which read the same.
TEST_P(GoldenTransformerSeq2seq, LogitsStepByStep) {
  const std::int64_t T = token.shape()[0], B = token.shape()[1];
  Tape tape(arena, /*recording=*/false);
  Pass reading(tape);
  const State state = model.encode(reading, source, {.beam = 2, .steps = T});
  reading.finish();
  const Tensor twice(device, {1, 2 * B}, DType::i32);
  for (std::int64_t t = 0; t < T; ++t) {
    Pass pass(tape);
    for (std::int64_t k = 0; k < 2; ++k) {
      copy(token.slice(t, 1).reshaped({B}), twice.reshaped({2 * B}).slice(k * B, B));
    }
    const Numbers logits = as_double(model.step(pass, twice, state, /*aligned=*/t % 2 == 0).logits);
    pass.finish();
    for (std::size_t k = 0; k < 2; ++k) {
      EXPECT_TRUE(close(test::part(logits, k, 2),
                        test::part(golden.values.at("logits").values, static_cast<std::size_t>(t),
                                   static_cast<std::size_t>(T)),
                        tolerance))
          << "step " << t << ", row " << k;
    }
  }
}

}  // namespace
}  // namespace carousel
