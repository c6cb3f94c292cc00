// The whole model against what PyTorch computed: tests/golden/ngram_lm*.json.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "models/ngram/ngram_lm.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;
using test::part;
using Numbers = std::vector<double>;

class GoldenNgramLm : public testing::TestWithParam<std::tuple<Device, DType, const char*>> {
 protected:
  const Device device = std::get<0>(GetParam());
  const DType dtype = std::get<1>(GetParam());
  const Golden golden{std::get<2>(GetParam())};
  NgramLm model{{.vocabulary = golden.options.at("vocabulary"),
                 .context = golden.options.at("context"),
                 .embed = golden.options.at("embed"),
                 .hidden = golden.options.at("hidden"),
                 .tie_weights = golden.options.at("tie_weights")},
                device,
                dtype,
                /*seed=*/1};
  Arena arena{device};
  const Tensor token = given("token"), target = given("target"), reset = given("reset");

  void SetUp() override {
    const Parameters& parameters = model.parameters();
    EXPECT_EQ(parameters.count() + 3, golden.given.size());  // besides the text
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      test::write(parameters.weight(i), golden.given.at(parameters.name(i)).values);
    }
    parameters.refresh_working();
  }
  Tensor given(const char* name) const { return golden.tensor(name, device, DType::i32); }
  static Tensor window(const Tensor& all, std::int64_t index) {
    return all.slice(index, 1).reshaped({all.shape()[1], all.shape()[2]});
  }
  Tolerance tolerance() const {
    return dtype == DType::f32 ? Tolerance{.absolute = 2e-6, .relative = 2e-6}
                               : Tolerance{.absolute = 0.06, .relative = 0.02};
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, GoldenNgramLm,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values(DType::f32, DType::bf16),
                                          testing::Values("ngram_lm", "ngram_lm_tied")),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  name(std::get<1>(each.param)) + "_" + std::get<2>(each.param);
                         });

TEST_P(GoldenNgramLm, LossesAndGradientsOfTwoWindowsWithResets) {
  Tape tape(arena, /*recording=*/true);
  const State state = model.initial_state(token.shape()[2]);
  for (std::int64_t index = 0; index < 2; ++index) {
    tape.clear();
    tape.add_gradients(index > 0);
    Pass pass(tape);
    const Batch batch{
        .fields = {{"token", window(token, index)}, {"target", window(target, index)}},
        .reset = window(reset, index)};
    const Objective objective = model.objective(pass, batch, state);
    tape.backward();
    pass.finish();
    EXPECT_TRUE(tape.unreached_parameters().empty());
    const Loss& loss = objective.terms.front().loss;
    const auto want = [&](const char* name) {
      return part(golden.values.at(name).values, static_cast<std::size_t>(index), 2);
    };
    EXPECT_TRUE(close(as_double(loss.rows.value()), want("rows"), tolerance()));
    EXPECT_TRUE(close(as_double(loss.mean.value()), want("mean"), tolerance()));
  }
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

TEST_P(GoldenNgramLm, LogitsStepByStep) {
  const State state = model.initial_state(token.shape()[2]);
  Tape tape(arena, /*recording=*/false);
  const Tensor first = window(token, 0);
  const Numbers& begins = golden.given.at("reset").values;
  const std::size_t B = static_cast<std::size_t>(token.shape()[2]),
                    V = golden.options.at("vocabulary");
  std::vector<bool> whole(B, true);  // a decoder knows no resets: up to the first one of a row
  for (std::int64_t t = 0; t < token.shape()[1]; ++t) {
    Pass pass(tape);
    const Numbers logits = as_double(model.logits(pass, {"token", first.slice(t, 1)}, state));
    pass.finish();
    for (std::size_t b = 0; b < B; ++b) {
      const std::size_t row = static_cast<std::size_t>(t) * B + b;
      whole[b] = whole[b] && (t == 0 || begins[row] == 0);
      if (!whole[b]) continue;
      const auto at = [V](const Numbers& all, std::size_t i) {
        return Numbers(&all[i * V], &all[i * V] + V);
      };
      EXPECT_TRUE(close(at(logits, b), at(golden.values.at("logits").values, row), tolerance()));
    }
  }
}

}  // namespace
}  // namespace carousel
