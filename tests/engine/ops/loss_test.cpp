#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "engine/ops.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::close;
using test::read;

constexpr std::int64_t kRows = 12, kWidth = 6, kVocab = 21;

Tensor uniform(const Device& device, Shape shape, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> draw(-1, 1);
  std::vector<float> values(static_cast<std::size_t>(shape.size()));
  for (float& v : values) v = draw(random);
  return test::tensor_of(device, shape, values);
}

Tensor targets(const Device& device) {  // as [T, B], the last one ignored
  std::vector<std::int32_t> values;
  for (std::int32_t n = 0; n < kRows; ++n)
    values.push_back(static_cast<std::int32_t>(n * 5 % kVocab));
  values.back() = kIgnoreTarget;
  return test::tensor_of(device, {3, 4}, values);
}

/// A tape with the output layer of a model on it.
struct Head {
  explicit Head(const Device& device, bool recording = true)
      : arena(device), tape(arena, recording), target(targets(device)) {
    const auto leaf = [&](Shape shape, unsigned seed) {
      return tape.parameter(uniform(device, shape, seed), uniform(device, shape, 99));
    };
    hidden = leaf({3, 4, kWidth}, 1);
    weight = leaf({kVocab, kWidth}, 2);
    bias = leaf({kVocab}, 3);
  }
  Arena arena;
  Tape tape;
  Tensor target;
  Var hidden, weight, bias;
};

TEST(LinearCrossEntropyRule, WritesTheGradientsWhenRecordedAndAddsAtASecondUse) {
  for (const Device& device : test::devices()) {
    Head head(device);
    const Loss loss = linear_cross_entropy(head.hidden, head.weight, head.bias, head.target);
    const std::vector<float> once = read<float>(head.weight.d());
    EXPECT_TRUE(head.tape.unreached_parameters().empty());
    const std::int32_t count = read<std::int32_t>(loss.count)[0];
    EXPECT_EQ(count, kRows - 1);
    double sum = 0;
    for (const float row : read<float>(loss.rows.value())) sum += static_cast<double>(row);
    EXPECT_NEAR(read<float>(loss.mean.value())[0], sum / count, 1e-6);

    linear_cross_entropy(head.hidden, head.weight, head.bias, head.target);
    std::vector<float> twice = read<float>(head.weight.d());
    for (float& d : twice) d /= 2;
    EXPECT_TRUE(close(twice, once, Tolerance{.absolute = 1e-7, .relative = 1e-6}));
  }
}

TEST(LinearCrossEntropyRule, PutsTheLossOnTheTapeUnderItsNames) {
  for (const Device& device : test::devices()) {
    Head head(device);
    const Loss loss = linear_cross_entropy(head.hidden, head.weight, head.bias, head.target);
    const auto labelled = head.tape.labelled();
    ASSERT_EQ(labelled.size(), 2U);
    EXPECT_EQ(labelled[0].label.text(), "loss per target");
    EXPECT_EQ(labelled[0].value.data(), loss.rows.value().data());
    EXPECT_EQ(labelled[0].value.shape(), head.target.shape());
    EXPECT_EQ(labelled[1].label.text(), "mean loss");
    EXPECT_EQ(labelled[1].value.data(), loss.mean.value().data());
    EXPECT_FALSE(loss.mean.needs_gradient() || loss.rows.needs_gradient());
  }
}

TEST(LinearCrossEntropyRule, TakesRowWeightsADenominatorAndAWeightOfTheTerm) {
  for (const Device& device : test::devices()) {
    Head plain(device), weighed(device);
    linear_cross_entropy(plain.hidden, plain.weight, plain.bias, plain.target);
    const std::vector<float> weights(kRows, 4), denominator{2 * (kRows - 1)};
    const Loss loss =
        linear_cross_entropy(weighed.hidden, weighed.weight, weighed.bias, weighed.target,
                             {.row_weight = test::tensor_of<float>(device, {3, 4}, weights),
                              .denominator = test::tensor_of<float>(device, {1}, denominator),
                              .term_weight = 0.5F});
    EXPECT_EQ(read<float>(weighed.weight.d()),
              read<float>(plain.weight.d()));  // powers of two are exact
    double sum = 0;
    for (const float row : read<float>(loss.rows.value())) sum += static_cast<double>(row);
    EXPECT_NEAR(read<float>(loss.mean.value())[0], 2 * sum / (kRows - 1), 1e-6);
  }
}

TEST(LinearCrossEntropyRule, WorksWithoutABiasAndWithoutRecording) {
  for (const Device& device : test::devices()) {
    Head head(device), quiet(device, /*recording=*/false);
    const Loss with = linear_cross_entropy(head.hidden, head.weight, Var{}, head.target);
    EXPECT_EQ(head.tape.unreached_parameters().size(), 1U);  // the bias
    const Loss without = linear_cross_entropy(quiet.hidden, quiet.weight, Var{}, quiet.target);
    EXPECT_TRUE(close(read<float>(without.rows.value()), read<float>(with.rows.value()),
                      Tolerance{.absolute = 1e-6, .relative = 1e-6}));
    EXPECT_EQ(read<float>(quiet.weight.d()),
              read<float>(uniform(device, {kVocab, kWidth}, 99)));  // left alone
  }
}

TEST(LinearCrossEntropyRule, IsTheLossOfLinearThenCrossEntropy) {
  for (const Device& device : test::devices()) {
    const Head fused(device), apart(device);
    const LossOptions options{.label_smoothing = 0.1F};
    const Loss loss =
        linear_cross_entropy(fused.hidden, fused.weight, fused.bias, fused.target, options);

    const Var logits = linear(apart.hidden, apart.weight, apart.bias);
    const Var rows = cross_entropy(logits, apart.target, options.label_smoothing);
    const std::vector<float> each(kRows, 1.0F / (kRows - 1));
    copy_from_host(rows.gradient().tensor, each.data());
    rows.tape().backward();

    constexpr Tolerance kNear{.absolute = 1e-6, .relative = 1e-5};
    EXPECT_TRUE(close(read<float>(loss.rows.value()), read<float>(rows.value()), kNear));
    EXPECT_TRUE(close(read<float>(fused.hidden.d()), read<float>(apart.hidden.d()), kNear));
    EXPECT_TRUE(close(read<float>(fused.weight.d()), read<float>(apart.weight.d()), kNear));
    EXPECT_TRUE(close(read<float>(fused.bias.d()), read<float>(apart.bias.d()), kNear));
  }
}

}  // namespace
}  // namespace carousel
