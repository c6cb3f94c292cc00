// The whole model against what PyTorch computed: tests/golden/seq2seq_*.json.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "models/seq2seq/seq2seq.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using Numbers = std::vector<double>;
using Attention = Seq2SeqConfig::Attention;

Seq2SeqConfig config_of(const nlohmann::json& options) {
  const std::map<std::string, Attention> kinds{{"none", Attention::none},
                                               {"dot", Attention::dot},
                                               {"general", Attention::general},
                                               {"additive", Attention::additive},
                                               {"concat", Attention::concat}};
  return {.source_vocabulary = options.at("source_vocabulary"),
          .vocabulary = options.at("vocabulary"),
          .embed = options.at("embed"),
          .encoder = {.cell = {options.at("cell")},
                      .hidden = options.at("hidden"),
                      .layers = options.at("layers"),
                      .bidirectional = options.at("bidirectional")},
          .attention = kinds.at(options.at("attention")),
          .input_feeding = options.at("input_feeding")};
}

class GoldenSeq2Seq : public testing::TestWithParam<std::tuple<Device, DType, const char*>> {
 protected:
  const Device device = std::get<0>(GetParam());
  const DType dtype = std::get<1>(GetParam());
  const Golden golden{std::get<2>(GetParam())};
  Seq2Seq model{config_of(golden.options), device, dtype, /*seed=*/1};
  Arena arena{device};
  const Tensor token = golden.tensor("token", device, DType::i32);
  const Field source{"source", golden.tensor("source", device, DType::i32),
                     golden.tensor("lengths", device, DType::i32)};

  void SetUp() override {
    const Parameters& parameters = model.parameters();
    EXPECT_EQ(parameters.count() + 4, golden.given.size());  // besides the texts
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      const test::Recorded& weight = golden.given.at(parameters.name(i));
      ASSERT_EQ(weight.shape(), parameters.shape(i)) << parameters.name(i);
      test::write(parameters.weight(i), weight.values);
    }
    parameters.refresh_working();
  }
  /// In bf16 every value between the embedding and the loss is rounded, a dozen of them in a row.
  Tolerance tolerance() const {
    return dtype == DType::f32 ? Tolerance{.absolute = 1e-5, .relative = 1e-5}
                               : Tolerance{.absolute = 0.1, .relative = 0.04};
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenSeq2Seq,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values(DType::f32, DType::bf16),
                                          testing::Values("seq2seq_none", "seq2seq_dot",
                                                          "seq2seq_general", "seq2seq_fed",
                                                          "seq2seq_additive", "seq2seq_concat")),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  name(std::get<1>(each.param)) + "_" + std::get<2>(each.param);
                         });

TEST_P(GoldenSeq2Seq, LossAndGradients) {
  Tape tape(arena, /*recording=*/true);
  Pass pass(tape);
  const Batch batch{
      .rows = token.shape()[1],
      .fields = {
          source, {"token", token}, {"target", golden.tensor("target", device, DType::i32)}}};
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

TEST_P(GoldenSeq2Seq, LogitsAndAlignmentStepByStep) {
  Tape tape(arena, /*recording=*/false);
  Pass reading(tape);
  const State state = model.encode(reading, source, {});
  const auto T = static_cast<std::size_t>(token.shape()[0]);
  for (std::size_t t = 0; t < T; ++t) {
    Pass pass(tape);
    const Translator::Step step =
        model.step(pass, token.slice(static_cast<std::int64_t>(t), 1), state, /*aligned=*/true);
    const Numbers logits = as_double(step.logits);
    pass.finish();
    EXPECT_TRUE(close(logits, test::part(golden.values.at("logits").values, t, T), tolerance()));
    ASSERT_EQ(static_cast<bool>(step.alignment), model.attends());
    if (!model.attends()) continue;
    EXPECT_TRUE(close(as_double(step.alignment),
                      test::part(golden.values.at("weights").values, t, T), tolerance()));
  }
}

}  // namespace
}  // namespace carousel
