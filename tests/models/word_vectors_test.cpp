#include "models/word_vectors.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/models/stepped_training.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::window;
using Kind = WordVectors::Kind;

/// A WordVectors model that SteppedTraining can make.
struct Config : WordVectorsConfig {
  Kind kind = Kind::cbow;
};
struct Words : WordVectors {
  Words(const Config& config, const Device& device, DType compute, const Beginning& beginning)
      : WordVectors(config.kind, config, device, compute, beginning) {}
};
using Training = test::SteppedTraining<Words, Config>;

/// Of the 17 numbers that window() has, those of 9 occur.
Config small(Kind kind, const std::string& output) {
  Config config;
  config.kind = kind;
  config.counts = std::vector<std::int64_t>(17, 0);
  for (std::size_t n = 0; n < 17; ++n) ++config.counts[n * n % 17];
  config.embed = 6;
  config.window = 2;
  config.subsample = 0;
  config.output = output;
  config.gradient = "mean";
  return config;
}

struct Case {
  Device device;
  Kind kind;
  const char* output;
};
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Device& device : test::devices()) {
    for (const Kind kind : {Kind::cbow, Kind::skipgram}) {
      for (const char* output : {"negative_sampling", "hierarchical_softmax", "softmax"}) {
        all.push_back({device, kind, output});
      }
    }
  }
  return all;
}
std::string name_of(const Case& c) {
  return test::device_name(c.device) + (c.kind == Kind::cbow ? "_cbow_" : "_skipgram_") + c.output;
}

class WordVectorsOn : public testing::TestWithParam<Case> {
 protected:
  Config config() const { return small(GetParam().kind, GetParam().output); }
};
INSTANTIATE_TEST_SUITE_P(All, WordVectorsOn, testing::ValuesIn(cases()),
                         [](const auto& of) { return name_of(of.param); });

// Logits are 0: each decision costs ln 2, whatever is drawn, and each of V words ln V.
TEST_P(WordVectorsOn, BeginsKnowingNothing) {
  Training training(config(), GetParam().device);
  const auto loss = static_cast<double>(training.gradients(window(GetParam().device, 0, 34, 3)));
  const double decisions = loss / std::log(2.0);
  if (config().output == "softmax") {
    EXPECT_NEAR(loss, std::log(17.0), 0.05 * std::log(17.0));
  } else if (config().output == "negative_sampling") {
    EXPECT_GT(decisions, 5);  // of 6, but for noise that is the target
    EXPECT_LE(decisions, 6.0001);
  } else {
    EXPECT_NEAR(decisions, std::log2(9.0), 0.5);  // the depth of 9 words
  }
}

TEST_P(WordVectorsOn, LearnsItsText) {
  Training training(config(), GetParam().device);
  const Batch batch = window(GetParam().device, 0, 51, 2);
  const float before = training.train(batch, 0.05F);
  for (int step = 0; step < 60; ++step) training.train(batch, 0.05F);
  const float after = training.gradients(batch);
  // A word is known from those around it, but not from one of them alone.
  EXPECT_LT(after, (GetParam().kind == Kind::cbow ? 0.5F : 0.85F) * before);
}

TEST_P(WordVectorsOn, TheSecondStepAllocatesNothing) {
  const Device& device = GetParam().device;
  Training training(config(), device);
  const Batch first = window(device, 0, 9, 3), second = window(device, 9, 9, 3);
  training.train(first, 0.01F);
  const MemoryUse before = memory_use(device);
  training.train(second, 0.01F);
  EXPECT_EQ(memory_use(device).allocations, before.allocations);
  EXPECT_EQ(memory_use(device).peak, before.peak);
}

TEST_P(WordVectorsOn, EveryPrecisionAndDeviceTrainsAlike) {
  Config config = this->config();
  config.subsample = 0.08;
  config.hidden = 7;
  const Device& device = GetParam().device;
  Training cpu(config, Cpu{}), here(config, device), rounded(config, device, DType::bf16);
  for (std::int64_t i = 0; i < 6; ++i) {
    const float want = cpu.train(window(Cpu{}, 7 * i, 17, 3), 0.01F);
    const Batch batch = window(device, 7 * i, 17, 3);
    EXPECT_NEAR(here.train(batch, 0.01F), want, 1e-5) << "step " << i;
    EXPECT_NEAR(rounded.train(batch, 0.01F), want, 0.03) << "step " << i;
  }
}

TEST_P(WordVectorsOn, EvaluationRepeatsAndKeepsAllWords) {
  Config config = this->config();
  config.subsample = 1e-6;  // of hardly any word in training
  const Device& device = GetParam().device;
  Words model(config, device, DType::f32, /*seed=*/3);
  Arena arena(device);
  Tape tape(arena, false);
  const auto evaluate = [&] {
    Pass pass(tape);
    const Loss loss = model.objective(pass, window(device, 0, 20, 2), {}).terms.front().loss;
    const auto result =
        std::pair(test::read<float>(loss.mean.value())[0], test::read<std::int32_t>(loss.count)[0]);
    tape.clear();
    arena.reset();
    return result;
  };
  const auto [loss, count] = evaluate();
  // Each of 40 words has four around it, but two at each end of a row, where two, then one, are missing.
  EXPECT_EQ(count, GetParam().kind == Kind::cbow ? 40 : 40 * 4 - 4 * 3);
  EXPECT_EQ(evaluate(), std::pair(loss, count));
}

TEST(WordVectors, AnyNumberOfThreadsGivesTheSameBits) {
  const int threads = omp_get_max_threads();
  for (const Kind kind : {Kind::cbow, Kind::skipgram}) {
    Config config = small(kind, "negative_sampling");
    config.gradient = "sum";
    config.embed = 40;
    const auto trained = [&](int count) {
      omp_set_num_threads(count);
      Training training(config, Cpu{}, DType::f32, 4);
      for (int step = 0; step < 3; ++step) training.train(window(Cpu{}, 20 * step, 300, 4), 0.05F);
      return test::values(training.model.token_embeddings());
    };
    EXPECT_EQ(trained(1), trained(3));
  }
  omp_set_num_threads(threads);
}

TEST(WordVectors, AStepNeedsAsMuchMemoryForAMillionWords) {
  for (const Kind kind : {Kind::cbow, Kind::skipgram}) {
    for (const char* output : {"negative_sampling", "hierarchical_softmax"}) {
      const auto of_a_step = [&](std::size_t words) {
        Config config = small(kind, output);
        // Equally deep trees for both: what a step keeps for a path grows with it.
        config.counts = std::vector<std::int64_t>(words, 0);
        for (std::size_t v = 0; v < 1000; ++v) config.counts[v] = 1 << 20;
        config.embed = 4;
        Training training(config, Cpu{});
        const std::size_t before = memory_use(Cpu{}).current;
        training.train(window(Cpu{}, 0, 40, 3), 0.05F);
        return memory_use(Cpu{}).current - before;
      };
      if (std::string(output) == "hierarchical_softmax") {
        EXPECT_LE(of_a_step(300'000), 2 * of_a_step(10'000));
      } else {
        EXPECT_EQ(of_a_step(300'000), of_a_step(10'000));
      }
    }
  }
}

TEST(WordVectors, SpecialTokensAreNoWords) {
  for (const Kind kind : {Kind::cbow, Kind::skipgram}) {
    Config config = small(kind, "negative_sampling");
    config.special = {1, 16};
    Training training(config, Cpu{});
    const auto before = test::values(training.model.token_embeddings());
    for (int step = 0; step < 3; ++step) training.train(window(Cpu{}, 0, 34, 3), 0.05F);
    const auto after = test::values(training.model.token_embeddings());
    for (std::size_t v = 0; v < 17; ++v) {
      const bool special = v == 1 || v == 16, occurs = config.counts[v] > 0;
      EXPECT_EQ(before[6 * v] != after[6 * v], occurs && !special) << v;
    }
  }
}

TEST(WordVectors, SharedNoiseIsLearntFromToo) {
  for (const std::int64_t share : {10, 64}) {
    Config config = small(Kind::skipgram, "negative_sampling");
    config.share_negatives = share;
    Training training(config, Cpu{});
    const Batch batch = window(Cpu{}, 0, 51, 2);
    const float before = training.train(batch, 0.05F);
    for (int step = 0; step < 60; ++step) training.train(batch, 0.05F);
    EXPECT_LT(training.gradients(batch), 0.85F * before) << share;
  }
}

TEST(WordVectors, NamesAreThoseOfOtherModels) {
  const auto names = [](Config config, std::int64_t hidden) {
    config.hidden = hidden;
    Words model(config, Cpu{}, DType::f32, 1);
    std::vector<std::string> result;
    for (std::size_t i = 0; i < model.parameters().count(); ++i) {
      result.push_back(model.parameters().name(i) + " " +
                       model.parameters().weight(i).shape().text());
    }
    return result;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(small(Kind::cbow, "negative_sampling"), 0),
            (Names{"embedding.weight [17, 6]", "output.weight [17, 6]"}));
  EXPECT_EQ(names(small(Kind::skipgram, "hierarchical_softmax"), 0),
            (Names{"embedding.weight [17, 6]", "nodes.weight [16, 6]"}));
  EXPECT_EQ(names(small(Kind::cbow, "softmax"), 8),
            (Names{"embedding.weight [17, 6]", "hidden.weight [8, 6]", "hidden.bias [8]",
                   "output.weight [17, 8]", "output.bias [17]"}));
}

}  // namespace
}  // namespace carousel
