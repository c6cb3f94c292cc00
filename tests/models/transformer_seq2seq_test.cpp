#include "models/transformer/transformer_seq2seq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine/generation/beam_search.h"
#include "kernels/common/check.h"
#include "tests/models/stepped_training.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/pairs.h"

namespace carousel {
namespace {

using test::Pair;
using test::pair_batch;
using Ids = std::vector<std::int32_t>;
using Config = TransformerSeq2seqConfig;
using Training = test::SteppedTraining<TransformerSeq2seq, Config>;

constexpr std::int64_t kTokens = 13;

Config small() {
  return {.sources = kTokens,
          .vocabulary = kTokens,
          .same_vocabulary = true,
          .layers = 2,
          .heads = 2,
          .embed = 16,
          .dropout = 0};
}

/// Every choice there is, in few configs.
std::vector<std::pair<std::string, Config>> variants() {
  Config pre = small(), shared = small();
  pre.norm_place = Config::NormPlace::pre;
  pre.tie_weights = false;
  pre.decoder_layers = 1;
  shared.share_embeddings = true;
  shared.attention_dropout = 0.1;
  return {{"post", small()}, {"pre", pre}, {"shared", shared}};
}

/// Texts of tokens 3 … 12, and each read backwards.
std::vector<Pair> reversals(std::size_t count, std::size_t longest, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < count; ++i) {
    Ids text;
    for (std::size_t n = 0; n <= (i + seed) % longest; ++n) {
      text.push_back(3 + static_cast<std::int32_t>(random() % (kTokens - 3)));
    }
    pairs.emplace_back(text, Ids(text.rbegin(), text.rend()));
  }
  return pairs;
}

std::vector<Ids> sources_of(const std::vector<Pair>& pairs) {
  std::vector<Ids> sources;
  for (const Pair& pair : pairs) {
    sources.push_back(pair.first);
    sources.back().push_back(test::kEnd);
  }
  return sources;
}

/// The losses of all targets, [T, B].
std::vector<float> losses(TransformerSeq2seq& model, const Batch& batch) {
  Arena arena(model.parameters().device());
  Tape tape(arena, false);
  Pass pass(tape);
  return host_floats(model.objective(pass, batch, {}).terms[0].loss.rows.value());
}

class TransformerSeq2seqOn : public testing::TestWithParam<Device> {
 protected:
  const Device device = GetParam();

  /// On an emulated device one will do: EveryPrecisionAndDeviceTrainsAlike has them all.
  std::vector<std::pair<std::string, Config>> few(
      std::vector<std::pair<std::string, Config>> all) const {
    if (!is_cpu(device)) all.resize(1);
    return all;
  }
  std::vector<std::vector<Hypothesis>> search(TransformerSeq2seq& model,
                                              const std::vector<Ids>& sources,
                                              const BeamOptions& options) const {
    BeamSearch search(model, device, {.begin = test::kBegin, .end = test::kEnd}, options);
    return search.search(sources);
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, TransformerSeq2seqOn, testing::ValuesIn(test::devices()),
                         [](const auto& each) { return test::device_name(each.param); });

TEST_P(TransformerSeq2seqOn, PaddingAndRowsThatFillUpChangeNothing) {
  const std::vector<Pair> pairs = reversals(3, 6, 2);
  constexpr Tolerance kClose{.absolute = 1e-5};
  for (const auto& [name, config] : few(variants())) {
    SCOPED_TRACE(name);
    TransformerSeq2seq model(config, device, DType::f32, /*seed=*/7);
    const std::vector<float> all = losses(model, pair_batch(device, pairs, /*filling=*/2, 5));
    const std::size_t B = pairs.size() + 2;
    for (std::size_t b = 0; b < pairs.size(); ++b) {
      const std::vector<float> alone = losses(model, pair_batch(device, {pairs[b]}));
      std::vector<float> own;
      for (std::size_t t = 0; t < alone.size(); ++t) own.push_back(all[t * B + b]);
      EXPECT_TRUE(test::close(own, alone, kClose)) << "row " << b;
    }
    Training plain(config, device), filled(config, device);
    const float loss = plain.gradients(pair_batch(device, pairs));
    EXPECT_NEAR(filled.gradients(pair_batch(device, pairs, 2, 5)), loss, 1e-5);
    for (std::size_t i = 0; config.attention_dropout == 0 && i < model.parameters().count(); ++i) {
      EXPECT_TRUE(test::close(test::values(filled.model.parameters().gradient(i)),
                              test::values(plain.model.parameters().gradient(i)), kClose))
          << model.parameters().name(i);
    }
  }
}

// What a search says of a text is what training says of it: rows keep their own caches however they
// are chosen among.
TEST_P(TransformerSeq2seqOn, HypothesesHaveTheProbabilitiesOfTraining) {
  const std::vector<Ids> sources = sources_of(reversals(is_cpu(device) ? 4 : 2, 6, 3));
  for (const auto& [name, config] : few(variants())) {
    SCOPED_TRACE(name);
    TransformerSeq2seq model(config, device, DType::f32, /*seed=*/7);
    const BeamOptions options{
        .beam = 3, .best = 3, .longest_factor = 1, .longest_constant = 2, .aligned = true};
    const auto together = search(model, sources, options);
    for (std::size_t b = 0; b < sources.size(); ++b) {
      const auto alone = search(model, {sources[b]}, options);
      ASSERT_EQ(together[b].size(), 3U);
      for (std::size_t i = 0; i < 3; ++i) {
        const Hypothesis& text = together[b][i];
        EXPECT_EQ(text.tokens, alone[0][i].tokens);
        EXPECT_NEAR(text.score, alone[0][i].score, 1e-5);
        EXPECT_TRUE(test::close(text.alignment, alone[0][i].alignment, {.absolute = 1e-5}));
        ASSERT_EQ(text.alignment.size(), text.tokens.size() * sources[b].size());
        for (std::size_t t = 0; t < text.tokens.size(); ++t) {
          double sum = 0;
          for (std::size_t s = 0; s < sources[b].size(); ++s) {
            sum += static_cast<double>(text.alignment[t * sources[b].size() + s]);
          }
          EXPECT_NEAR(sum, 1, 1e-5);
        }
        Ids written = text.tokens;
        if (text.ended) written.pop_back();
        const Ids source(sources[b].begin(), sources[b].end() - 1);
        const std::vector<float> nats = losses(model, pair_batch(device, {{source, written}}));
        double sum = 0;
        for (std::size_t t = 0; t < text.tokens.size(); ++t) sum -= static_cast<double>(nats[t]);
        EXPECT_NEAR(text.log_probability, sum, 1e-4);
      }
    }
  }
}

TEST_P(TransformerSeq2seqOn, EveryPrecisionAndDeviceTrainsAlike) {
  for (auto [name, config] : variants()) {
    SCOPED_TRACE(name);
    config.dropout = 0.2;
    Training cpu(config, Cpu{}), here(config, device), rounded(config, device, DType::bf16);
    for (unsigned i = 0; i < 2; ++i) {
      const std::vector<Pair> pairs = reversals(2, 3, i + 1);
      const float want = cpu.train(pair_batch(Cpu{}, pairs, 1), 0.003F);
      const Batch batch = pair_batch(device, pairs, 1);
      EXPECT_NEAR(here.train(batch, 0.003F), want, 2e-5) << "step " << i;
      EXPECT_NEAR(rounded.train(batch, 0.003F), want, 0.05) << "step " << i;
    }
  }
}

TEST_P(TransformerSeq2seqOn, TheSecondStepAllocatesNothing) {
  Training training(small(), device);
  const Batch first = pair_batch(device, reversals(4, 4, 4)),
              second = pair_batch(device, reversals(4, 4, 8));
  training.train(first, 0.01F);
  const MemoryUse before = memory_use(device);
  training.train(second, 0.01F);
  EXPECT_EQ(memory_use(device).allocations, before.allocations);
}

TEST(TransformerSeq2seq, BeginsNearTheUniformDistribution) {
  Config config = small();
  config.vocabulary = 2000;
  config.tie_weights = false;
  for (const auto place : {Config::NormPlace::post, Config::NormPlace::pre}) {
    config.norm_place = place;
    Training training(config, Cpu{});
    EXPECT_NEAR(training.gradients(pair_batch(Cpu{}, reversals(6, 5, 1))), std::log(2000),
                0.05 * std::log(2000));
  }
}

TEST(TransformerSeq2seq, LearnsToReadBackwards) {
  for (auto [name, config] : variants()) {
    SCOPED_TRACE(name);
    config.embed = 32;
    config.attention_dropout = 0;
    config.label_smoothing = 0;
    Training training(config, Cpu{});
    float loss = 0;
    for (unsigned step = 0; step < 500; ++step) {
      const float rate = 0.004F * std::min(1.0F, static_cast<float>(step + 1) / 40);
      loss = training.train(pair_batch(Cpu{}, reversals(48, 4, step)), rate);
    }
    const std::vector<Pair> unseen = reversals(40, 4, 1000);
    BeamSearch search(training.model, Cpu{}, {.begin = test::kBegin, .end = test::kEnd}, {});
    const auto found = search.search(sources_of(unseen));
    int right = 0;
    for (std::size_t i = 0; i < unseen.size(); ++i) {
      Ids want = unseen[i].second;
      want.push_back(test::kEnd);
      right += found[i][0].tokens == want ? 1 : 0;
    }
    EXPECT_GE(right, 36) << "of 40, with a loss of " << loss;
  }
}

TEST(TransformerSeq2seq, NamesAreThoseOfPyTorch) {
  Config config = small();
  config.layers = 1;
  TransformerSeq2seq model(config, Cpu{}, DType::f32, 1);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < model.parameters().count(); ++i) {
    names.push_back(model.parameters().name(i) + " " + model.parameters().weight(i).shape().text());
  }
  EXPECT_EQ(names.size(), 2U + 12 + 21);
  const auto has = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  EXPECT_TRUE(has("source_embedding.weight [13, 16]"));
  EXPECT_TRUE(has("encoder.layers.0.self_attn.in_proj_weight [48, 16]"));
  EXPECT_TRUE(has("encoder.layers.0.linear1.bias [64]"));
  EXPECT_TRUE(has("decoder.layers.0.multihead_attn.v_proj.bias [16]"));
  EXPECT_FALSE(has("decoder.layers.0.multihead_attn.k_proj.bias [16]"));
  EXPECT_TRUE(has("decoder.layers.0.norm3.weight [16]"));
}

TEST(TransformerSeq2seq, RefusesSizesThatDoNotFit) {
  const auto refuses = [](auto spoil) {
    Config config = small();
    spoil(config);
    EXPECT_THROW(TransformerSeq2seq(config, Cpu{}, DType::f32, 1), ConfigError);
  };
  refuses([](Config& config) { config.heads = 3; });
  refuses([](Config& config) { config.embed = 514; });
  refuses([](Config& config) {
    config.share_embeddings = true;
    config.same_vocabulary = false;
  });
}

}  // namespace
}  // namespace carousel
