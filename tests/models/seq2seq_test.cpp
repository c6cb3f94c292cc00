#include "models/seq2seq/seq2seq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "models/alignment.h"
#include "tests/models/pair_texts.h"
#include "tests/models/stepped_training.h"
#include "tests/support/batches.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::IdPair;
using test::Ids;
using test::pair_batch;
using Config = Seq2SeqConfig;
using Attention = Config::Attention;
using Training = test::SteppedTraining<Seq2Seq, Config>;

constexpr std::int64_t kSources = 13, kTargets = 11;

Config small() {
  return {.source_vocabulary = kSources,
          .vocabulary = kTargets,
          .embed = 10,
          .encoder = {.cell = {"lstm"}, .hidden = 12, .layers = 2}};
}

/// Every choice there is, in few configs.
std::vector<std::pair<std::string, Config>> variants() {
  Config fed = small(), fed_once = small();
  fed.input_feeding = fed_once.input_feeding = true;
  fed.encoder.bidirectional = true;
  fed.attention = Attention::general;
  fed_once.encoder.layers = 1;
  fed_once.encoder.cell = {"gru"};
  Config none = small(), handed = small(), dot = small(), general = small(), shared = small();
  none.attention = Attention::none;
  none.encoder.bidirectional = true;
  handed.encoder.cell = {"slstm", "gru"};
  handed.encoder.layers = 2;
  dot.encoder.bidirectional = true;
  general.attention = Attention::general;
  general.attention_heads = 3;
  general.encoder.bidirectional = true;
  general.encoder.cell = {"gru"};
  Config additive = small(), concat = small(), concat_fed = small();
  additive.attention = Attention::additive;
  additive.encoder.bidirectional = true;
  concat.attention = concat_fed.attention = Attention::concat;
  concat.encoder.bidirectional = concat_fed.input_feeding = true;
  concat_fed.encoder.cell = {"gru"};
  concat_fed.encoder.layers = 1;
  shared.source_vocabulary = kTargets;
  shared.same_vocabulary = shared.share_embeddings = shared.tie_weights = true;
  shared.embed = 12;
  shared.encoder.residual = true;
  return {{"none", none},         {"handed", handed},
          {"dot", dot},           {"general", general},
          {"shared", shared},     {"fed", fed},
          {"fed once", fed_once}, {"additive", additive},
          {"concat", concat},     {"concat, fed", concat_fed}};
}

/// Sources and what they say backwards, of lengths from 1 on.
std::vector<IdPair> reversed_pairs(std::size_t count, std::size_t longest) {
  std::mt19937 random(5);
  std::vector<IdPair> pairs;
  for (std::size_t i = 0; i < count; ++i) {
    Ids source;
    for (std::size_t n = 0; n < 1 + i % longest; ++n) {
      source.push_back(static_cast<std::int32_t>(3 + random() % (kTargets - 3)));
    }
    pairs.emplace_back(source, Ids(source.rbegin(), source.rend()));
  }
  return pairs;
}

class Seq2SeqOn : public testing::TestWithParam<Device> {
 protected:
  const Device device = GetParam();

  /// What each of the tokens of `rows` is followed by, after a source of its own: one step at a time.
  std::vector<Translator::Step> steps(Seq2Seq& model, Tape& tape, const Field& source,
                                      const Tensor& token) {
    const std::int64_t beam = token.shape()[1] / source.values.shape()[1];
    Pass reading(tape);
    const State state = model.encode(reading, source, {.beam = beam, .steps = token.shape()[0]});
    std::vector<Translator::Step> result;
    for (std::int64_t t = 0; t < token.shape()[0]; ++t) {
      Pass pass(tape);
      result.push_back(model.step(pass, token.slice(t, 1), state, /*aligned=*/true));
      pass.finish();
    }
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, Seq2SeqOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(Seq2SeqOn, BeginsKnowingNothing) {
  for (const auto& [name, config] : variants()) {
    Training training(config, device);
    const float loss = training.gradients(pair_batch(device, reversed_pairs(12, 5)));
    EXPECT_NEAR(loss, std::log(11.0), 0.05 * std::log(11.0)) << name;
  }
}

TEST_P(Seq2SeqOn, StepsGiveWhatTrainingGives) {
  const Batch batch = pair_batch(device, reversed_pairs(5, 4));
  for (const auto& [name, config] : variants()) {
    SCOPED_TRACE(name);
    Seq2Seq model(config, device, DType::f32, /*seed=*/7);
    Arena arena(device);
    Tape tape(arena, true);
    Pass pass(tape, {.prediction = true});
    const Objective objective = model.objective(pass, batch, {});
    const std::vector<float> all = host_floats(objective.prediction);
    Arena stepping(device);
    Tape steps_tape(stepping, false);
    std::vector<float> stepped;
    for (const auto& step : steps(model, steps_tape, batch.at("source"), batch["token"])) {
      const std::vector<float> logits = host_floats(step.logits);
      stepped.insert(stepped.end(), logits.begin(), logits.end());
    }
    EXPECT_TRUE(test::close(stepped, all, {.absolute = 1e-5}));
    Pass choosing(tape, {.choices = true});
    const Ids choices = test::numbers(model.objective(choosing, batch, {}).choices);
    for (auto row = all.begin(); const std::int32_t choice : choices) {
      EXPECT_EQ(choice, std::max_element(row, row + kTargets) - row);
      row += kTargets;
    }
  }
}

// Row k·B + b is the k-th of source b: as if it were alone with its source.
TEST_P(Seq2SeqOn, RowsOfABeamAreAsEachAloneAndShareTheMemory) {
  constexpr std::int64_t kBeam = 3, kSteps = 2;
  const std::vector<IdPair> pairs = reversed_pairs(3, 3);
  const Field source = pair_batch(device, pairs).at("source");
  const std::int64_t B = source.values.shape()[1], S = source.values.shape()[0];
  Ids tokens;
  for (std::int32_t i = 0; i < kSteps * kBeam * B; ++i) {
    tokens.push_back(static_cast<std::int32_t>(i * i % kTargets));
  }
  for (const auto& [name, config] : variants()) {
    SCOPED_TRACE(name);
    Seq2Seq model(config, device, DType::f32, /*seed=*/7);
    Arena arena(device);
    Tape tape(arena, false);
    Pass reading(tape);
    const State state = model.encode(reading, source, {.beam = kBeam, .steps = kSteps});
    for (const StateTensor& tensor : state.tensors) {
      const bool common =
          tensor.name == "memory" || tensor.name == "keys" || tensor.name == "lengths";
      EXPECT_EQ(tensor.batch_axis, common ? -1 : 0) << tensor.name;
      if (tensor.name == "keys") {
        EXPECT_EQ(tensor.value.shape(), (Shape{S, B, 12}));
      }
      if (tensor.name == "memory") {
        EXPECT_EQ(tensor.value.shape(), (Shape{S, B, config.context_width()}));
      }
    }
    const Tensor token = test::tensor_of(device, {kSteps, kBeam * B}, tokens);
    const auto together = steps(model, tape, source, token);
    for (std::int64_t row = 1; row < kBeam * B; row += B + 1) {  // of another source each
      Ids own;
      for (std::int64_t t = 0; t < kSteps; ++t) {
        own.push_back(tokens[static_cast<std::size_t>(t * kBeam * B + row)]);
      }
      const Field one = pair_batch(device, {pairs[static_cast<std::size_t>(row % B)]}).at("source");
      const auto alone = steps(model, tape, one, test::tensor_of(device, {kSteps, 1}, own));
      const auto part_of = [&](const Tensor& all, std::size_t width, std::size_t used) {
        const std::vector<float> values = host_floats(all);
        const auto first = values.begin() + row * static_cast<std::ptrdiff_t>(width);
        return std::vector<float>(first, first + static_cast<std::ptrdiff_t>(used));
      };
      for (std::size_t t = 0; t < kSteps; ++t) {
        EXPECT_TRUE(test::close(part_of(together[t].logits, kTargets, kTargets),
                                host_floats(alone[t].logits), {.absolute = 2e-6}))
            << "row " << row;
        if (!model.attends()) continue;
        const std::vector<float> weights = host_floats(alone[t].alignment);
        EXPECT_TRUE(
            test::close(part_of(together[t].alignment, static_cast<std::size_t>(S), weights.size()),
                        weights, {.absolute = 2e-6}));
      }
    }
  }
}

TEST_P(Seq2SeqOn, AnAlignmentSpreadsOneOverTheSource) {
  const Batch batch = pair_batch(device, reversed_pairs(4, 4));
  const std::vector<std::int32_t> lengths = test::read<std::int32_t>(batch.at("source").lengths);
  for (const auto& [name, config] : variants()) {
    SCOPED_TRACE(name);
    Seq2Seq model(config, device, DType::f32, /*seed=*/7);
    EXPECT_EQ(model.attends(), name != "none");
    Arena arena(device);
    Tape tape(arena, false);
    for (const auto& step : steps(model, tape, batch.at("source"), batch["token"])) {
      if (!model.attends()) {
        EXPECT_FALSE(step.alignment);
        continue;
      }
      const std::vector<float> weights = host_floats(step.alignment);
      const std::size_t S = weights.size() / lengths.size();
      for (std::size_t row = 0; row < lengths.size(); ++row) {
        double sum = 0;
        for (std::size_t s = 0; s < S; ++s) {
          const double weight = static_cast<double>(weights[row * S + s]);
          EXPECT_EQ(weight > 0, s < static_cast<std::size_t>(lengths[row]));
          sum += weight;
        }
        EXPECT_NEAR(sum, 1, 1e-6);
      }
    }
  }
}

TEST_P(Seq2SeqOn, TheWeightsOfAWholeTextAreThoseOfItsSteps) {
  const Batch batch = pair_batch(device, {{{3, 4, 5, 6}, {6, 5, 4}}});
  Config fed_by_heads = small();
  fed_by_heads.input_feeding = true;
  fed_by_heads.attention_heads = 3;
  auto all = variants();
  all.emplace_back("fed by heads", fed_by_heads);
  for (const auto& [name, config] : all) {
    SCOPED_TRACE(name);
    Seq2Seq model(config, device, DType::f32, /*seed=*/7);
    ASSERT_EQ(model.attention_reader() != nullptr, config.attends());
    if (!config.attends()) continue;
    Arena arena(device);
    Tape tape(arena, false);
    Pass pass(tape);
    const AttentionWeights whole = model.attention_weights(pass, batch).at(0);
    ASSERT_EQ(whole.weights.shape(), (Shape{1, config.attention_heads, 4, 5}));
    std::vector<float> stepped;
    for (const auto& step : steps(model, tape, batch.at("source"), batch["token"])) {
      for (const float weight : host_floats(step.alignment)) stepped.push_back(weight);
    }
    EXPECT_TRUE(
        test::close(host_floats(mean_of_heads(tape, whole.weights)), stepped, {.absolute = 1e-6}));
  }
}

TEST_P(Seq2SeqOn, EverySourceTokenCountsForEveryTarget) {
  for (const auto& [name, config] : variants()) {
    SCOPED_TRACE(name);
    Seq2Seq model(config, device, DType::f32, /*seed=*/7);
    Arena arena(device);
    const auto losses = [&](const Ids& source) {
      arena.reset();
      Tape tape(arena, false);
      Pass pass(tape);
      const Batch batch = pair_batch(device, {{source, {5, 6}}});
      return host_floats(model.objective(pass, batch, {}).terms[0].loss.rows.value());
    };
    const Ids source{3, 4, 5};
    const std::vector<float> one = losses(source);
    for (std::size_t s = 0; s < source.size(); ++s) {
      Ids changed = source;
      changed[s] = 9;
      const std::vector<float> other = losses(changed);
      for (std::size_t t = 0; t < one.size(); ++t) EXPECT_NE(one[t], other[t]) << s << ' ' << t;
    }
  }
}

TEST_P(Seq2SeqOn, TheSecondStepAllocatesNothing) {
  for (const auto& [name, config] : variants()) {
    if (name != "general" && name != "fed once" && name != "additive") continue;
    Training training(config, device);
    const Batch batch = pair_batch(device, reversed_pairs(4, 3));
    training.train(batch, 0.01F);
    const MemoryUse before = memory_use(device);
    training.train(batch, 0.01F);
    EXPECT_EQ(memory_use(device).allocations, before.allocations) << name;
  }
}

TEST_P(Seq2SeqOn, EveryPrecisionAndDeviceTrainsAlike) {
  for (auto [name, config] : variants()) {
    SCOPED_TRACE(name);
    config.encoder.dropout = 0.2;
    config.label_smoothing = 0.1;
    Training cpu(config, Cpu{}), here(config, device), rounded(config, device, DType::bf16);
    for (std::size_t i = 0; i < 3; ++i) {
      const std::vector<IdPair> pairs = reversed_pairs(2 + i, 3);
      const float want = cpu.train(pair_batch(Cpu{}, pairs), 0.003F);
      const Batch batch = pair_batch(device, pairs);
      EXPECT_NEAR(here.train(batch, 0.003F), want, 2e-5) << "step " << i;
      EXPECT_NEAR(rounded.train(batch, 0.003F), want, 0.03) << "step " << i;
    }
  }
}

TEST(Seq2Seq, LearnsToReverseTextsAndWritesThem) {
  const std::vector<IdPair> pairs = reversed_pairs(36, 6);
  const Batch batch = pair_batch(Cpu{}, pairs);
  const std::int64_t B = batch.rows;
  for (auto [name, config] : variants()) {
    SCOPED_TRACE(name);
    config.encoder.hidden = 32;
    config.attention_heads = 1;
    config.embed = 32;
    Training training(config, Cpu{});
    float loss = 0;
    for (int step = 0; step < 240; ++step) {
      loss = training.train(batch, step < 180 ? 0.01F : 0.002F);
    }
    EXPECT_LT(loss, 0.05F);

    Arena arena(Cpu{});
    Tape tape(arena, false);
    Pass reading(tape);
    const State state = training.model.encode(reading, batch.at("source"), {.steps = 8});
    Ids token(static_cast<std::size_t>(B), test::kBegin);
    const Ids targets = test::read<std::int32_t>(batch["target"]);
    int right = 0;
    for (std::int64_t t = 0; t < batch["target"].shape()[0]; ++t) {
      Pass pass(tape);
      const Tensor read = test::tensor_of(Cpu{}, {1, B}, token);
      const std::vector<float> logits =
          host_floats(training.model.step(pass, read, state, false).logits);
      pass.finish();
      for (std::int64_t b = 0; b < B; ++b) {
        const auto first = logits.begin() + b * kTargets;
        token[static_cast<std::size_t>(b)] =
            static_cast<std::int32_t>(std::max_element(first, first + kTargets) - first);
        const std::int32_t want = targets[static_cast<std::size_t>(t * B + b)];
        right += want >= 0 && token[static_cast<std::size_t>(b)] == want ? 1 : 0;
      }
    }
    EXPECT_GT(right, 0.99 * static_cast<double>(batch.counted));
  }
}

TEST(Seq2Seq, EvaluationHasTheLossWithoutSmoothing) {
  const Batch batch = pair_batch(Cpu{}, reversed_pairs(6, 4));
  Config smoothed = small();
  smoothed.label_smoothing = 0.3;
  Seq2Seq plain(small(), Cpu{}, DType::f32, 7), model(smoothed, Cpu{}, DType::f32, 7);
  Arena arena(Cpu{});
  const auto loss = [&](Seq2Seq& of, bool training) {
    Tape tape(arena, training);
    Pass pass(tape);
    return test::value(of.objective(pass, batch, {}).terms[0].loss.mean.value());
  };
  EXPECT_EQ(loss(model, false), loss(plain, false));
  EXPECT_NE(loss(model, true), loss(plain, true));
}

}  // namespace
}  // namespace carousel
