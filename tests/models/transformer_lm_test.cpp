#include "models/transformer/transformer_lm.h"

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
using Config = TransformerLmConfig;
using Training = test::SteppedTraining<TransformerLm, Config>;

Config small() {
  return {.vocabulary = kVocabulary, .context = 12, .layers = 2, .heads = 2, .embed = 16};
}

/// Every choice there is, in few configs.
std::vector<std::pair<std::string, Config>> variants() {
  Config llama = small(), vaswani = small(), neighbours = small(), bare = small();
  llama.norm = Config::Norm::rms;
  llama.positions = Config::Positions::rotary;
  llama.feed_forward = Config::FeedForward::swiglu;
  llama.kv_heads = 1;
  llama.bias = false;
  vaswani.positions = Config::Positions::sinusoidal;
  vaswani.feed_forward = Config::FeedForward::relu;
  neighbours.positions = Config::Positions::rotary;
  neighbours.rope_pairs = RopePairs::neighbours;
  neighbours.tie_weights = false;
  neighbours.hidden = 24;
  bare.bias = false;
  bare.feed_forward = Config::FeedForward::gelu_tanh;
  return {{"gpt2", small()},
          {"llama", llama},
          {"vaswani", vaswani},
          {"neighbours", neighbours},
          {"bare", bare}};
}

class TransformerLmOn : public testing::TestWithParam<Device> {
 protected:
  const Device device = GetParam();

  /// Logits after each of the tokens of rows, one at a time or in pieces of several.
  std::vector<float> last_logits(TransformerLm& model, const std::vector<Ids>& rows,
                                 std::size_t piece) {
    Arena arena(device);
    Tape tape(arena, false);
    const State state = model.decoding_state(std::ssize(rows));
    std::vector<float> logits;
    for (std::size_t first = 0; first < rows[0].size(); first += piece) {
      Ids tokens;
      const std::size_t end = std::min(first + piece, rows[0].size());
      for (std::size_t t = first; t < end; ++t) {
        for (const Ids& row : rows) tokens.push_back(row[t]);
      }
      Pass pass(tape);
      const Shape shape{static_cast<std::int64_t>(end - first), std::ssize(rows)};
      logits =
          host_floats(model.logits(pass, {"token", test::tensor_of(device, shape, tokens)}, state));
      pass.finish();
    }
    return logits;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, TransformerLmOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(TransformerLmOn, BeginsKnowingNothing) {
  for (const auto& [name, config] : variants()) {
    Training training(config, device);
    const float loss = training.gradients(window(device, 0, 12, 3));
    EXPECT_NEAR(loss, std::log(17.0), 0.05 * std::log(17.0)) << name;
  }
}

TEST_P(TransformerLmOn, ATokenCountsForItselfAndWhatFollowsAndNotBefore) {
  for (const auto& [name, config] : variants()) {
    TransformerLm model(config, device, DType::f32, /*seed=*/7);
    Arena arena(device);
    const auto losses = [&](std::int32_t third) {
      Tape tape(arena, false);
      Pass pass(tape);
      const Tensor token = test::tensor_of<std::int32_t>(device, {5, 1}, {1, 2, third, 4, 5});
      const Tensor target = test::tensor_of<std::int32_t>(device, {5, 1}, {6, 7, 8, 9, 10});
      const Batch batch{.rows = 1, .fields = {{"token", token}, {"target", target}}};
      return host_floats(model.objective(pass, batch, {}).terms[0].loss.rows.value());
    };
    const std::vector<float> one = losses(3), other = losses(11);
    for (std::size_t t = 0; t < 5; ++t) EXPECT_EQ(one[t] == other[t], t < 2) << name << ' ' << t;
  }
}

TEST_P(TransformerLmOn, ACacheGivesWhatTheWholeTextGives) {
  const std::vector<Ids> rows{{1, 5, 3, 8, 2, 9, 4, 11}, {7, 2, 6, 1, 16, 3, 3, 0}};
  for (const auto& [name, config] : variants()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      TransformerLm model(config, device, dtype, /*seed=*/7);
      const Tolerance close = dtype == DType::f32 ? Tolerance{.absolute = 1e-5}
                                                  : Tolerance{.absolute = 0.02, .relative = 0.02};
      const std::vector<float> whole = last_logits(model, rows, 8);
      EXPECT_TRUE(test::close(last_logits(model, rows, 1), whole, close)) << name;
      EXPECT_TRUE(test::close(last_logits(model, rows, 3), whole, close)) << name;
    }
  }
}

TEST_P(TransformerLmOn, ACacheGivesWhatTrainingGives) {
  const Ids text{1, 5, 3, 8, 2, 9, 4, 11};
  for (const auto& [name, config] : variants()) {
    TransformerLm model(config, device, DType::f32, /*seed=*/7);
    Arena arena(device);
    Tape tape(arena, true);
    Pass pass(tape);
    const Batch batch{.rows = 1,
                      .fields = {{"token", test::tensor_of(device, {8, 1}, text)},
                                 {"target", test::tensor_of(device, {8, 1}, Ids(8, 6))}}};
    const std::vector<float> losses =
        host_floats(model.objective(pass, batch, {}).terms[0].loss.rows.value());
    Generator generator(model, {.greedy = true});
    for (std::size_t t = 0; t < 8; ++t) {
      const Ids one{text[t]};
      t == 0 ? generator.begin(one) : generator.go_on(std::vector<Ids>{one});
      EXPECT_NEAR(-std::log(generator.probabilities()[0][6]), static_cast<double>(losses[t]), 1e-5)
          << name << ' ' << t;
    }
  }
}

// Past the context a row reads on with the last C − 1 tokens before each. With one layer these alone
// count: the hidden units of a layer come from farther back.
TEST_P(TransformerLmOn, BeyondTheContextACacheSlides) {
  for (const auto positions : {Config::Positions::rotary, Config::Positions::sinusoidal}) {
    Config config = small();
    config.positions = positions;
    config.layers = 1;
    config.context = 4;
    TransformerLm model(config, device, DType::f32, /*seed=*/7);
    const std::vector<Ids> one{{1, 5, 3, 8, 2, 9, 4, 11, 6}}, other{{9, 2, 7, 1, 16, 9, 4, 11, 6}},
        nearer{{1, 5, 3, 8, 2, 10, 4, 11, 6}};
    constexpr Tolerance kClose{.absolute = 1e-5};
    const std::vector<float> logits = last_logits(model, one, 1);
    EXPECT_TRUE(test::close(last_logits(model, other, 1), logits, kClose));
    EXPECT_TRUE(test::close(last_logits(model, one, 9), logits, kClose));
    EXPECT_TRUE(test::close(last_logits(model, one, 5), logits, kClose));
    EXPECT_FALSE(test::close(last_logits(model, nearer, 1), logits, kClose));
    if (positions == Config::Positions::rotary) {  // which tell distances alone
      EXPECT_TRUE(test::close(last_logits(model, {{9, 4, 11, 6}}, 1), logits, kClose));
    }
  }
}

// Learnt positions: what is written beyond the context is what follows the later half of it.
TEST_P(TransformerLmOn, BeyondLearntPositionsTheLaterHalfIsReadAgain) {
  Config config = small();
  config.context = 6;
  TransformerLm model(config, device, DType::f32, /*seed=*/7);
  EXPECT_EQ(model.longest(), 6);
  const std::vector<Ids> prompts{{1, 5, 3, 8}, {2}};
  Generator generator(model, {.greedy = true}, 2);
  generator.begin(prompts);
  std::vector<Ids> texts = prompts, seen = prompts;
  for (int i = 0; i < 11; ++i) {
    const std::vector<std::vector<double>> got = generator.probabilities();
    for (std::size_t row = 0; row < 2; ++row) {
      Generator alone(model, {.greedy = true});
      alone.begin(seen[row]);
      EXPECT_TRUE(test::close(got[row], alone.probabilities()[0], {.absolute = 1e-6}))
          << "token " << i << " of row " << row;
    }
    const Ids& next = generator.next();
    for (std::size_t row = 0; row < 2; ++row) {
      texts[row].push_back(next[row]);
      seen[row].push_back(next[row]);
      if (seen[row].size() > 6) seen[row].erase(seen[row].begin(), seen[row].end() - 3);
    }
  }
  Ids longer(20, 3);
  longer.insert(longer.end(), {4, 5, 6});
  generator.begin(std::vector<Ids>{longer, {2}});
  Generator later(model, {.greedy = true});
  later.begin({4, 5, 6});
  EXPECT_TRUE(
      test::close(generator.probabilities()[0], later.probabilities()[0], {.absolute = 1e-6}));
}

TEST_P(TransformerLmOn, LongTextsAreJudgedByWindowsAndRestartsHideWhatWasBefore) {
  Config config = small();
  config.context = 4;
  const auto losses = [&](const Config& of, const Ids& ids, const Ids& reset) {
    TransformerLm model(of, device, DType::f32, /*seed=*/7);
    Arena arena(device);
    Tape tape(arena, false);
    Pass pass(tape);
    const Shape shape{std::ssize(ids), 1};
    Batch batch{.rows = 1,
                .fields = {{"token", test::tensor_of(device, shape, ids)},
                           {"target", test::tensor_of(device, shape, ids)}}};
    if (!reset.empty()) batch.reset = test::tensor_of(device, shape, reset);
    return host_floats(model.objective(pass, batch, {}).terms[0].loss.rows.value());
  };
  const auto part = [](const std::vector<float>& all, std::ptrdiff_t first, std::ptrdiff_t end) {
    return std::vector<float>(all.begin() + first, all.begin() + end);
  };
  constexpr Tolerance kClose{.absolute = 1e-5};
  const Ids text{1, 5, 3, 8, 2, 9, 4};
  const std::vector<float> cut = losses(config, text, {}), first = losses(config, {1, 5, 3, 8}, {}),
                           second = losses(config, {2, 9, 4}, {});
  EXPECT_TRUE(test::close(part(cut, 0, 4), first, kClose));
  EXPECT_TRUE(test::close(part(cut, 4, 7), second, kClose));
  const std::vector<float> restarted = losses(config, {1, 5, 3, 8}, {1, 0, 1, 0});
  EXPECT_TRUE(test::close(part(restarted, 2, 4), losses(config, {3, 8}, {}), kClose));
  config.stride = 2;
  const std::vector<float> overlapping = losses(config, text, {});
  EXPECT_TRUE(
      test::close(part(overlapping, 4, 6), part(losses(config, {3, 8, 2, 9}, {}), 2, 4), kClose));
}

TEST_P(TransformerLmOn, TheSecondStepAllocatesNothing) {
  Training training(small(), device);
  const Batch first = window(device, 0, 9, 3), second = window(device, 9, 9, 3);
  training.train(first, 0.01F);
  const MemoryUse before = memory_use(device);
  training.train(second, 0.01F);
  EXPECT_EQ(memory_use(device).allocations, before.allocations);
  EXPECT_EQ(memory_use(device).peak, before.peak);
}

TEST_P(TransformerLmOn, EveryPrecisionAndDeviceTrainsAlike) {
  for (auto [name, config] : variants()) {
    SCOPED_TRACE(name);
    config.dropout = 0.2;
    Training cpu(config, Cpu{}), here(config, device), rounded(config, device, DType::bf16);
    for (std::int64_t i = 0; i < 4; ++i) {
      const float want = cpu.train(window(Cpu{}, 7 * i, 7, 3), 0.003F);
      const Batch batch = window(device, 7 * i, 7, 3);
      EXPECT_NEAR(here.train(batch, 0.003F), want, 2e-5) << "step " << i;
      EXPECT_NEAR(rounded.train(batch, 0.003F), want, 0.03) << "step " << i;
    }
  }
}

TEST(TransformerLm, LearnsLinesByHeartAndWritesThem) {
  constexpr std::int32_t kLines = 40, kWords = 20;
  constexpr std::size_t kLength = 10;
  std::mt19937 random(3);
  std::vector<Ids> lines;
  for (std::int32_t i = 0; i < kLines; ++i) {
    Ids line{kWords + i};
    while (line.size() < kLength) line.push_back(static_cast<std::int32_t>(random() % kWords));
    lines.push_back(line);
  }
  Ids token, target;
  for (std::size_t t = 0; t + 1 < kLength; ++t) {
    for (const Ids& line : lines) token.push_back(line[t]), target.push_back(line[t + 1]);
  }
  const Shape shape{static_cast<std::int64_t>(kLength) - 1, kLines};
  Batch batch{.rows = kLines, .counted = shape.size()};
  batch.fields = {{"token", test::tensor_of(Cpu{}, shape, token)},
                  {"target", test::tensor_of(Cpu{}, shape, target)}};
  for (auto [name, config] : variants()) {
    SCOPED_TRACE(name);
    config.vocabulary = kLines + kWords;
    config.embed = 32;
    Training training(config, Cpu{}, DType::f32, kLines);
    float loss = 0;
    for (int step = 0; step < 160; ++step)
      loss = training.train(batch, step < 120 ? 0.01F : 0.002F);
    EXPECT_LT(loss, 0.1F);

    Generator generator(training.model, {.greedy = true}, kLines);
    std::vector<Ids> names;
    for (const Ids& line : lines) names.push_back({line[0]});
    generator.begin(names);
    int right = 0;
    for (std::size_t t = 1; t < kLength; ++t) {
      const Ids& next = generator.next();
      for (std::size_t i = 0; i < lines.size(); ++i) right += next[i] == lines[i][t] ? 1 : 0;
    }
    EXPECT_GE(right, static_cast<int>(lines.size() * (kLength - 1)) * 98 / 100);
  }
}

TEST(TransformerLm, NamesAndShapesAreGpt2s) {
  Config config = small();
  config.layers = 1;
  TransformerLm model(config, Cpu{}, DType::f32, 1);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < model.parameters().count(); ++i) {
    names.push_back(model.parameters().name(i) + " " + model.parameters().weight(i).shape().text());
  }
  const std::string h = "transformer.h.0.";
  EXPECT_EQ(names,
            (std::vector<std::string>{
                "transformer.wte.weight [17, 16]", "transformer.wpe.weight [12, 16]",
                h + "ln_1.weight [16]", h + "ln_1.bias [16]", h + "attn.c_attn.weight [48, 16]",
                h + "attn.c_attn.bias [48]", h + "attn.c_proj.weight [16, 16]",
                h + "attn.c_proj.bias [16]", h + "ln_2.weight [16]", h + "ln_2.bias [16]",
                h + "mlp.c_fc.weight [64, 16]", h + "mlp.c_fc.bias [64]",
                h + "mlp.c_proj.weight [16, 64]", h + "mlp.c_proj.bias [16]",
                "transformer.ln_f.weight [16]", "transformer.ln_f.bias [16]"}));
}

TEST(TransformerLm, RefusesSizesThatDoNotFitAndLongWindows) {
  const auto refuses = [](auto spoil) {
    Config config = small();
    spoil(config);
    EXPECT_THROW(TransformerLm(config, Cpu{}, DType::f32, 1), ConfigError);
  };
  refuses([](Config& config) { config.heads = 3; });
  refuses([](Config& config) { config.kv_heads = 3; });
  refuses([](Config& config) { config.embed = 514; });
  refuses([](Config& config) { config.stride = 13; });
  refuses([](Config& config) {
    config.positions = Config::Positions::rotary;
    config.embed = 6;
  });
  Training training(small(), Cpu{});
  EXPECT_THROW(training.gradients(window(Cpu{}, 0, 13, 3)), ConfigError);
}

}  // namespace
}  // namespace carousel
