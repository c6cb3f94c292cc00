// The output layers of language models, on every device of the build.
#include "models/output_layer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "engine/generation/generator.h"
#include "engine/training/training_step.h"
#include "kernels/common/check.h"
#include "models/ngram/ngram_lm.h"
#include "models/recurrent/recurrent_lm.h"
#include "tests/models/stepped_training.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/tensors.h"
#include "tests/support/windows.h"

namespace carousel {
namespace {

using test::error_text;
using test::kVocabulary;
using test::window;
using Ids = std::vector<std::int32_t>;
using Kind = OutputConfig::Kind;

OutputConfig adaptive() { return {.kind = Kind::adaptive, .cutoffs = "3, 8", .div_value = 2}; }

OutputConfig drawn(Kind kind, OutputConfig::Sampler sampler) {
  OutputConfig config{.kind = kind, .samples = 48, .sampler = sampler};
  for (std::int64_t word = 0; word < kVocabulary; ++word) config.counts.push_back(40 - 2 * word);
  config.counts[3] = 0;
  return config;
}
OutputConfig sampled() { return drawn(Kind::sampled, OutputConfig::Sampler::log_uniform); }
OutputConfig nce() { return drawn(Kind::nce, OutputConfig::Sampler::unigram); }

RecurrentLmConfig recurrent(const OutputConfig& output) {
  return {.vocabulary = kVocabulary,
          .embed = 12,
          .encoder = {.hidden = 12, .dropout = 0.2},
          .output = output};
}
NgramLmConfig ngram(const OutputConfig& output) {
  return {.vocabulary = kVocabulary, .context = 3, .embed = 6, .hidden = 12, .output = output};
}

/// The losses per target of a batch in evaluation, read on from the state.
std::vector<float> exact_losses(Model& model, const Device& device, const Batch& batch) {
  Arena arena(device);
  Tape tape(arena, false);
  Pass pass(tape);
  const Objective objective = model.objective(pass, batch, model.initial_state(batch.rows));
  return host_floats(objective.terms.front().loss.rows.value());
}

/// What a model of this kind is, whichever way its output layer is trained.
class OutputLayers : public testing::TestWithParam<std::tuple<Device, OutputConfig>> {
 protected:
  const Device device = std::get<0>(GetParam());
  const OutputConfig output = std::get<1>(GetParam());
};
std::string kind_name(Kind kind) {
  return std::array{"full", "adaptive", "sampled", "nce"}.at(static_cast<std::size_t>(kind));
}
INSTANTIATE_TEST_SUITE_P(Devices, OutputLayers,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values(OutputConfig{}, adaptive(), sampled(),
                                                          nce())),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  kind_name(std::get<1>(each.param).kind);
                         });

TEST_P(OutputLayers, EvaluationIsTheLogProbabilityThatGenerationHas) {
  const auto expect_equal = [&](Model& model) {
    const Batch batch = window(device, 0, 6, 1);
    const std::vector<float> losses = exact_losses(model, device, batch);
    const Ids token = test::read<std::int32_t>(batch["token"]),
              target = test::read<std::int32_t>(batch["target"]);
    Generator generator(model, {.greedy = true});
    for (std::size_t t = 0; t < token.size(); ++t) {
      const std::vector<Ids> prompt{Ids(token.begin(), token.begin() + std::ptrdiff_t(t) + 1)};
      generator.begin(prompt);
      const std::vector<double> p = generator.probabilities().front();
      EXPECT_EQ(std::ssize(p), kVocabulary);
      double sum = 0;
      for (const double x : p) sum += x;
      EXPECT_NEAR(sum, 1, 1e-6);
      EXPECT_NEAR(losses[t], -std::log(p[static_cast<std::size_t>(target[t])]), 1e-5) << t;
    }
  };
  RecurrentLm recurrent_model(recurrent(output), device, DType::f32, /*seed=*/7);
  expect_equal(recurrent_model);
  NgramLm ngram_model(ngram(output), device, DType::f32, /*seed=*/7);
  expect_equal(ngram_model);
}

TEST_P(OutputLayers, ABatchIsLearntByHeart) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    test::SteppedTraining<NgramLm, NgramLmConfig> training(ngram(output), device, compute);
    const Batch batch = window(device, 0, 20, 3);
    for (int step = 0; step < 150; ++step) {
      training.state.reset();
      training.train(batch, 0.02F);
    }
    double sum = 0;
    const std::vector<float> losses = exact_losses(training.model, device, batch);
    for (const float loss : losses) sum += loss;
    EXPECT_LT(sum / static_cast<double>(losses.size()), 0.1) << name(compute);
  }
}

TEST_P(OutputLayers, DevicesAndPrecisionsTrainAlike) {
  using Training = test::SteppedTraining<RecurrentLm, RecurrentLmConfig>;
  const RecurrentLmConfig config = recurrent(output);
  Training cpu(config, Cpu{}), here(config, device), rounded(config, device, DType::bf16);
  for (std::int64_t i = 0; i < 6; ++i) {
    const float want = cpu.train(window(Cpu{}, 7 * i, 7, 3), 0.01F);
    const Batch batch = window(device, 7 * i, 7, 3);
    EXPECT_NEAR(here.train(batch, 0.01F), want, 1e-5) << "step " << i;
    EXPECT_NEAR(rounded.train(batch, 0.01F), want, 0.03) << "step " << i;
  }
}

TEST_P(OutputLayers, OnCudaAStepIsAGraphWithTheBitsOfEagerSteps) {
  if (is_cpu(device)) GTEST_SKIP() << "no graphs on the CPU";
  constexpr std::int64_t kBatch = 3, kSteps = 12;
  std::vector<std::vector<float>> weights;
  for (const bool graph : {false, true}) {
    RecurrentLm model(recurrent(output), device, DType::f32, /*seed=*/7);
    Optimizer optimizer({.kind = "adamw", .clip_norm = 1}, model.parameters());
    test::Windows data(device, kBatch, {7});
    TrainingRun run{
        .model = model, .optimizer = optimizer, .data = data, .state = model.initial_state(kBatch)};
    const Schedule schedule{.kind = "constant", .learning_rate = 0.01, .steps = kSteps};
    TrainingStep step(run, {.schedule = schedule,
                            .seed = 3,
                            .graph = graph,
                            .refused = [](const std::string& why) { ADD_FAILURE() << why; }});
    for (std::int64_t i = 0; i < kSteps; ++i) {
      step.begin();
      step.run();
    }
    EXPECT_EQ(step.graphs().launched(), graph ? kSteps - 1 : 0);
    weights.emplace_back();
    for (std::size_t i = 0; i < model.parameters().count(); ++i) {
      const std::vector<float> values = host_floats(model.parameters().weight(i));
      weights.back().insert(weights.back().end(), values.begin(), values.end());
    }
  }
  EXPECT_EQ(weights[0], weights[1]);
}

TEST_P(OutputLayers, TheSecondStepAllocatesNothing) {
  test::SteppedTraining<RecurrentLm, RecurrentLmConfig> training(recurrent(output), device);
  std::vector<Batch> batches;
  for (std::int64_t i = 0; i < 5; ++i) batches.push_back(window(device, 9 * i, 9, 3));
  training.train(batches[0], 0.01F);
  const MemoryUse before = memory_use(device);
  const std::size_t used = training.arena.used();
  for (const Batch& batch : batches) training.train(batch, 0.01F);
  EXPECT_EQ(memory_use(device).allocations, before.allocations);
  EXPECT_EQ(training.arena.used(), used);
}

// What a step of a drawn loss touches: the rows of the targets and of the drawn words.
TEST(DrawnOutput, AStepTouchesFewRowsAndItsMemoryDoesNotGrowWithTheVocabulary) {
  for (const Device& device : test::devices()) {
    for (const Kind kind : {Kind::sampled, Kind::nce}) {
      std::vector<std::size_t> used;
      for (const std::int64_t vocabulary : {std::int64_t{200}, std::int64_t{20000}}) {
        NgramLmConfig config = ngram({.kind = kind, .samples = 48});
        config.vocabulary = vocabulary;
        test::SteppedTraining<NgramLm, NgramLmConfig> training(config, device);
        training.train(window(device, 0, 9, 3), 0.01F);
        used.push_back(training.arena.used());
        Parameters& parameters = training.model.parameters();
        for (std::size_t i = 0; i < parameters.count(); ++i) {
          if (!parameters.name(i).starts_with("output.")) continue;
          const RowGradient* const rows = parameters.row_gradient(i);
          ASSERT_NE(rows, nullptr) << parameters.name(i);
          const std::int32_t count = test::read<std::int32_t>(rows->count)[0];
          EXPECT_GT(count, 17);
          EXPECT_LE(count, 27 + 48);
        }
      }
      EXPECT_EQ(used[0], used[1]);
    }
  }
}

TEST(DrawnOutput, HasTheParametersOfAFullLayer) {
  const auto parameters_of = [](const OutputConfig& output) {
    NgramLm model(ngram(output), Cpu{}, DType::f32, 1);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < model.parameters().count(); ++i) {
      names.push_back(model.parameters().name(i) + model.parameters().shape(i).text());
    }
    return names;
  };
  EXPECT_EQ(parameters_of(sampled()), parameters_of({}));
  EXPECT_EQ(parameters_of(nce()), parameters_of({}));
}

TEST(DrawnOutput, TheBiasBeginsAtTheLogOfTheSamplersProbabilities) {
  for (const Device& device : test::devices()) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const OutputConfig& output : {sampled(), nce()}) {
        RecurrentLm model(recurrent(output), device, compute, 1);
        const Parameters& parameters = model.parameters();
        ASSERT_EQ(parameters.name(parameters.count() - 1), "output.bias");
        const std::vector<float> bias = host_floats(parameters.weight(parameters.count() - 1));
        double counts = 0;
        for (const std::int64_t count : output.counts) counts += count == 0 ? 1 : double(count);
        for (std::size_t w = 0; w < bias.size(); ++w) {
          const double rank = double(w) + 1, vocabulary = double(kVocabulary);
          const double q = output.kind == Kind::sampled
                               ? std::log((rank + 1) / rank) / std::log(vocabulary + 1)
                               : std::max(1.0, double(output.counts[w])) / counts;
          EXPECT_NEAR(bias[w], std::log(q), 1e-6) << w;
        }
      }
    }
  }
}

TEST(DrawnOutput, ATiedMatrixLearnsToo) {
  for (const Device& device : test::devices()) {
    NgramLmConfig config = ngram(sampled());
    config.embed = 12, config.tie_weights = true;
    test::SteppedTraining<NgramLm, NgramLmConfig> training(config, device);
    const float before = training.train(window(device, 0, 20, 3), 0.02F);
    float after = 0;
    for (int step = 0; step < 60; ++step) {
      training.state.reset();
      after = training.train(window(device, 0, 20, 3), 0.02F);
    }
    EXPECT_LT(after, before / 4);
  }
}

TEST(DrawnOutput, BytesHaveNoRankAndSmoothingIsRefused) {
  NgramLmConfig config = ngram(sampled());
  config.output.by_count = false;
  const auto make = [&] { NgramLm(config, Cpu{}, DType::f32, 1); };
  EXPECT_NE(error_text<ConfigError>(make).find("model.sampler is log_uniform"), std::string::npos);
  config.output.sampler = OutputConfig::Sampler::unigram;
  EXPECT_NO_THROW(make());
  config.label_smoothing = 0.1;
  EXPECT_NE(error_text<ConfigError>(make).find("model.label_smoothing is 0.1"), std::string::npos);
}

TEST(AdaptiveOutput, NamesAndShapesArePyTorchs) {
  NgramLm model(ngram(adaptive()), Cpu{}, DType::f32, 1);
  std::vector<std::string> names;
  for (std::size_t i = 5; i < model.parameters().count(); ++i) {
    names.push_back(model.parameters().name(i) + " " + model.parameters().weight(i).shape().text());
  }
  EXPECT_EQ(names, (std::vector<std::string>{
                       "output.head.weight [5, 12]", "output.head.bias [5]",
                       "output.tail.0.0.weight [6, 12]", "output.tail.0.1.weight [5, 6]",
                       "output.tail.1.0.weight [3, 12]", "output.tail.1.1.weight [9, 3]"}));
}

TEST(AdaptiveOutput, RefusesWhatItCannotHave) {
  const auto refusal = [](const auto& change) {
    NgramLmConfig config = ngram(adaptive());
    change(config);
    return error_text<ConfigError>([&] { NgramLm(config, Cpu{}, DType::f32, 1); });
  };
  EXPECT_NE(refusal([](auto& c) { c.tie_weights = true, c.embed = 12; }).find("model.tie_weights"),
            std::string::npos);
  EXPECT_NE(refusal([](auto& c) { c.label_smoothing = 0.1; }).find("model.label_smoothing is 0.1"),
            std::string::npos);
  EXPECT_NE(refusal([](auto& c) { c.output.by_count = false; }).find("order of frequency"),
            std::string::npos);
  EXPECT_NE(refusal([](auto& c) { c.output.div_value = 5; }).find("model.div_value is 5"),
            std::string::npos);
  for (const char* cutoffs : {"", "3,", "3; 8", "x", "3 8", "8, 3", "0, 3", "3, 17", "3.5"}) {
    EXPECT_NE(refusal([&](auto& c) { c.output.cutoffs = cutoffs; }).find("model.cutoffs"),
              std::string::npos)
        << cutoffs;
  }
}

}  // namespace
}  // namespace carousel
