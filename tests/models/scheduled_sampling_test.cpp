// A seq2seq that is trained on tokens of which some are its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "models/seq2seq/seq2seq.h"
#include "tests/models/pair_texts.h"
#include "tests/models/stepped_training.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Ids;
using Config = Seq2SeqConfig;
using Training = test::SteppedTraining<Seq2Seq, Config>;

constexpr std::int64_t kWords = 11;

/// The step of random numbers is 1 in the first pass: the linear share is 1 − 1/K.
constexpr TeacherForcing kAllGiven{.steps = 1, .least = 1}, kNoneGiven{.steps = 1},
    kHalfGiven{.steps = 2};

Config config_of(Config::Attention attention, bool feeding) {
  return {.source_vocabulary = kWords,
          .vocabulary = kWords,
          .embed = 6,
          .encoder = {.cell = {"lstm"}, .hidden = 8, .layers = 1, .bidirectional = true},
          .attention = attention,
          .input_feeding = feeding};
}

std::vector<std::pair<std::string, Config>> variants() {
  using Attention = Config::Attention;
  return {{"none", config_of(Attention::none, false)},
          {"concat", config_of(Attention::concat, false)},
          {"fed", config_of(Attention::concat, true)},
          {"additive", config_of(Attention::additive, false)}};
}

Config scheduled(Config config, const TeacherForcing& forcing) {
  config.scheduled_sampling = true;
  config.teacher_forcing = forcing;
  return config;
}

/// Weights far enough from each other that a token's lead does not hang on a last bit.
void spread(Seq2Seq& model) {
  const Tensor& weights = model.parameters().flat_weights();
  std::vector<float> values = host_floats(weights);
  for (float& value : values) value *= 4;
  copy_from_host(weights, values.data());
}

Batch some_pairs(const Device& device) {
  return test::pair_batch(device, {{{3, 4}, {6, 7, 8}}, {{6}, {3, 10}}, {{9, 3}, {4, 5, 3}}});
}

class ScheduledSamplingOn : public testing::TestWithParam<Device> {
 protected:
  const Device device = GetParam();
  const Batch batch = some_pairs(device);

  /// The loss and all gradients of the first pass.
  std::pair<float, std::vector<float>> pass(const Config& config, const Batch& of) const {
    Training training(config, device);
    spread(training.model);
    const float loss = training.gradients(of);
    return {loss, host_floats(training.model.parameters().flat_gradients())};
  }

  /// The batch with the tokens that the model writes itself, greedily, as it would translate.
  Batch own_tokens(const Config& config) const {
    Training training(config, device);
    spread(training.model);
    Arena arena(device);
    Tape tape(arena, false);
    Pass reading(tape);
    const Tensor& token = batch["token"];
    const std::int64_t T = token.shape()[0], B = token.shape()[1];
    const State state = training.model.encode(reading, batch.at("source"), {.steps = T});
    const auto width = static_cast<std::size_t>(B);
    Ids all = test::read<std::int32_t>(token), now(all.begin(), all.begin() + B);
    for (std::int64_t t = 0; t + 1 < T; ++t) {
      Pass step(tape);
      const auto logits = host_floats(
          training.model.step(step, test::tensor_of(device, {1, B}, now), state, false).logits);
      step.finish();
      for (std::size_t b = 0; b < width; ++b) {
        const auto first = logits.begin() + static_cast<std::ptrdiff_t>(b) * kWords;
        now[b] = static_cast<std::int32_t>(std::max_element(first, first + kWords) - first);
        all[static_cast<std::size_t>(t + 1) * width + b] = now[b];
      }
    }
    Batch result = batch;
    for (Field& field : result.fields) {
      if (field.name == "token") field.values = test::tensor_of(device, token.shape(), all);
    }
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, ScheduledSamplingOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(ScheduledSamplingOn, WithAllTokensGivenItIsTeacherForcingBitForBit) {
  for (auto [name, config] : variants()) {
    config.encoder.dropout = 0.3;
    EXPECT_EQ(pass(scheduled(config, kAllGiven), batch), pass(config, batch)) << name;
  }
}

// The choice is a constant: the gradients are those of a batch that has these tokens.
TEST_P(ScheduledSamplingOn, WithNoneGivenItReadsWhatItWrites) {
  for (const auto& [name, config] : variants()) {
    const Batch own = own_tokens(config);
    EXPECT_NE(test::read<std::int32_t>(own["token"]), test::read<std::int32_t>(batch["token"]));
    EXPECT_EQ(pass(scheduled(config, kNoneGiven), batch), pass(config, own)) << name;
  }
}

TEST_P(ScheduledSamplingOn, OtherwiseItIsBetweenAndTheSameEachTime) {
  for (const auto& [name, config] : variants()) {
    const Config half = scheduled(config, kHalfGiven);
    const auto got = pass(half, batch);
    EXPECT_EQ(pass(half, batch), got) << name;
    EXPECT_NE(pass(scheduled(config, kAllGiven), batch), got) << name;
    EXPECT_NE(pass(scheduled(config, kNoneGiven), batch), got) << name;
  }
}

TEST_P(ScheduledSamplingOn, EvaluationReadsTheTarget) {
  for (const auto& [name, config] : variants()) {
    const auto loss = [&](const Config& of) {
      Seq2Seq model(of, device, DType::f32, /*seed=*/7);
      Arena arena(device);
      Tape tape(arena, false);
      Pass evaluation(tape);
      return test::value(model.objective(evaluation, batch, {}).terms[0].loss.mean.value());
    };
    EXPECT_EQ(loss(scheduled(config, kNoneGiven)), loss(config)) << name;
  }
}

}  // namespace
}  // namespace carousel
