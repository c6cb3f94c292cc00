#include "models/ngram/ngram_lm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine/generation/generator.h"
#include "kernels/common/check.h"
#include "tests/models/stepped_training.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::kVocabulary;
using test::window;
using Ids = std::vector<std::int32_t>;
using Training = test::SteppedTraining<NgramLm, NgramLmConfig>;

NgramLmConfig small() {
  return {.vocabulary = kVocabulary, .context = 3, .embed = 6, .hidden = 16};
}

class NgramLmOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, NgramLmOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(NgramLmOn, BeginsKnowingNothing) {
  NgramLmConfig config = small();
  config.hidden = 64;
  Training training(config, GetParam());
  const float loss = training.gradients(window(GetParam(), 0, 34, 3));
  EXPECT_NEAR(loss, std::log(17.0), 0.05 * std::log(17.0));
}

TEST_P(NgramLmOn, TwoWindowsWithCarriedStateAreOneLongWindow) {
  Training whole(small(), GetParam()), parts(small(), GetParam());
  const float one = whole.gradients(window(GetParam(), 0, 10, 3));
  // The second window is shorter than the context.
  const float first = parts.gradients(window(GetParam(), 0, 4, 3)),
              second = parts.gradients(window(GetParam(), 4, 1, 3)),
              third = parts.gradients(window(GetParam(), 5, 5, 3));
  EXPECT_NEAR(one, (4 * first + second + 5 * third) / 10, 1e-6);
  EXPECT_EQ(test::read<std::int32_t>(whole.state.at("context").value),
            test::read<std::int32_t>(parts.state.at("context").value));
}

TEST_P(NgramLmOn, ATokenCountsWithinTheContextAndNotBeyond) {
  const NgramLmConfig config = small();
  NgramLm model(config, GetParam(), DType::f32, /*seed=*/7);
  const auto after = [&](const Ids& prompt) {
    Generator generator(model, {.greedy = true});
    generator.begin(prompt);
    return generator.probabilities().front();
  };
  EXPECT_EQ(after({1, 2, 3, 4}), after({9, 2, 3, 4}));
  EXPECT_NE(after({1, 2, 3, 4}), after({1, 9, 3, 4}));
  EXPECT_NE(after({3, 4}), after({2, 3, 4}));
}

TEST_P(NgramLmOn, TheSecondStepAllocatesNothing) {
  Training training(small(), GetParam());
  const Batch first = window(GetParam(), 0, 9, 3), second = window(GetParam(), 9, 9, 3);
  training.train(first, 0.01F);
  const MemoryUse before = memory_use(GetParam());
  training.train(second, 0.01F);
  EXPECT_EQ(memory_use(GetParam()).allocations, before.allocations);
  EXPECT_EQ(memory_use(GetParam()).peak, before.peak);
}

TEST_P(NgramLmOn, EveryPrecisionAndDeviceTrainsAlike) {
  NgramLmConfig config = small();
  config.dropout = 0.2;
  Training cpu(config, Cpu{}), here(config, GetParam()), rounded(config, GetParam(), DType::bf16);
  for (std::int64_t i = 0; i < 6; ++i) {
    const float want = cpu.train(window(Cpu{}, 7 * i, 7, 3), 0.01F);
    const Batch batch = window(GetParam(), 7 * i, 7, 3);
    EXPECT_NEAR(here.train(batch, 0.01F), want, 1e-5) << "step " << i;
    EXPECT_NEAR(rounded.train(batch, 0.01F), want, 0.03) << "step " << i;
  }
}

/// Lines of a name of their own and words in no order: four tokens determine the next one.
std::vector<Ids> lines_to_learn(std::int32_t count, std::int32_t words, std::size_t length) {
  std::mt19937 random(3);
  std::vector<Ids> lines;
  for (std::int32_t i = 0; i < count; ++i) {
    Ids line{words + i};
    while (line.size() < length) {
      line.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(words)));
    }
    lines.push_back(line);
  }
  return lines;
}

TEST(NgramLm, LearnsHundredsOfLinesByHeartAndWritesThem) {
  constexpr std::int32_t kLines = 300, kWords = 60;
  constexpr std::size_t kLength = 8;
  const std::vector<Ids> lines = lines_to_learn(kLines, kWords, kLength);
  Ids token, target;
  for (std::size_t t = 0; t + 1 < kLength; ++t) {
    for (const Ids& line : lines) token.push_back(line[t]), target.push_back(line[t + 1]);
  }
  const Shape shape{static_cast<std::int64_t>(kLength) - 1, kLines};
  Batch batch{.rows = kLines, .counted = shape.size()};
  batch.fields = {{"token", test::tensor_of(Cpu{}, shape, token)},
                  {"target", test::tensor_of(Cpu{}, shape, target)}};
  Training training(NgramLmConfig{.vocabulary = kLines + kWords, .embed = 24, .hidden = 64}, Cpu{},
                    DType::f32, kLines);
  float loss = 0;
  for (int step = 0; step < 120; ++step) {
    training.state.reset();
    loss = training.train(batch, step < 80 ? 0.02F : 0.004F);
  }
  EXPECT_LT(loss, 0.05F);

  Generator generator(training.model, {.greedy = true}, kLines);
  std::vector<Ids> names;
  for (const Ids& line : lines) names.push_back({line[0]});
  generator.begin(names);
  int right = 0;
  for (std::size_t t = 1; t < kLength; ++t) {
    const Ids& next = generator.next();
    for (std::size_t i = 0; i < lines.size(); ++i) right += next[i] == lines[i][t] ? 1 : 0;
  }
  EXPECT_GE(right, static_cast<int>(lines.size() * (kLength - 1)) * 99 / 100);
}

TEST(NgramLm, NamesAndShapesArePyTorchs) {
  NgramLm model(small(), Cpu{}, DType::f32, 1);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < model.parameters().count(); ++i) {
    names.push_back(model.parameters().name(i) + " " + model.parameters().weight(i).shape().text());
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"embedding.weight [17, 6]", "hidden.weight [16, 18]",
                                      "hidden.bias [16]", "norm.weight [16]", "norm.bias [16]",
                                      "output.weight [17, 16]", "output.bias [17]"}));
}

TEST(NgramLm, TyingNeedsEqualWidths) {
  NgramLmConfig config = small();
  config.tie_weights = true;
  EXPECT_THROW(NgramLm(config, Cpu{}, DType::f32, 1), ConfigError);
}

}  // namespace
}  // namespace carousel
