// What a seq2seq is made of, by its config.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "models/seq2seq/seq2seq.h"

namespace carousel {
namespace {

using Config = Seq2SeqConfig;
using Attention = Config::Attention;

Config small() {
  return {.source_vocabulary = 13,
          .vocabulary = 11,
          .embed = 10,
          .encoder = {.cell = {"lstm"}, .hidden = 12, .layers = 2}};
}

TEST(Seq2Seq, NamesAndShapesArePyTorchs) {
  Config config = small();
  config.encoder.layers = 1;
  config.encoder.bidirectional = true;
  config.attention = Attention::general;
  Seq2Seq model(config, Cpu{}, DType::f32, 1);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < model.parameters().count(); ++i) {
    names.push_back(model.parameters().name(i) + " " + model.parameters().shape(i).text());
  }
  std::vector<std::string> want{"decoder.embedding.weight [11, 10]",
                                "encoder.embedding.weight [13, 10]"};
  for (const char* const end : {"_l0", "_l0_reverse", ""}) {
    const std::string stack = *end != 0 ? "encoder.lstm." : "decoder.lstm.",
                      which = *end != 0 ? end : "_l0";
    want.push_back(stack + "weight_ih" + which + " [48, 10]");
    want.push_back(stack + "weight_hh" + which + " [48, 12]");
    want.push_back(stack + "bias_ih" + which + " [48]");
    want.push_back(stack + "bias_hh" + which + " [48]");
  }
  for (const char* const part :
       {"bridge.h_l0.weight [12, 24]", "bridge.h_l0.bias [12]", "bridge.c_l0.weight [12, 24]",
        "bridge.c_l0.bias [12]", "attention.memory.weight [12, 24]",
        "attention.score.weight [12, 12]", "attention.output.weight [12, 24]",
        "output.weight [11, 12]", "output.bias [11]"}) {
    want.emplace_back(part);
  }
  EXPECT_EQ(names, want);
}

TEST(Seq2Seq, ScoresOfSumsHaveWeightsOfTheirOwn) {
  for (const Attention kind : {Attention::additive, Attention::concat}) {
    Config config = small();
    config.encoder.layers = 1;
    config.encoder.bidirectional = true;
    config.attention = kind;
    Seq2Seq model(config, Cpu{}, DType::f32, 1);
    std::vector<std::string> got;
    for (std::size_t i = 0; i < model.parameters().count(); ++i) {
      const std::string& name = model.parameters().name(i);
      if (name.starts_with("attention.") || name == "decoder.lstm.weight_ih_l0") {
        got.push_back(name + " " + model.parameters().shape(i).text());
      }
    }
    const std::string reads = kind == Attention::additive ? "34" : "10";  // 10 + 2·12
    EXPECT_EQ(got, (std::vector<std::string>{
                       "decoder.lstm.weight_ih_l0 [48, " + reads + "]",
                       "attention.query.weight [12, 12]", "attention.key.weight [12, 24]",
                       "attention.score.weight [1, 12]", "attention.output.weight [12, 36]"}));
  }
}

TEST(Seq2Seq, RefusesWhatDoesNotFitTogether) {
  const auto refuses = [](auto spoil) {
    Config config = small();
    spoil(config);
    EXPECT_THROW(Seq2Seq(config, Cpu{}, DType::f32, 1), ConfigError);
  };
  refuses([](Config& config) { config.share_embeddings = true; });
  refuses([](Config& config) { config.tie_weights = true; });
  refuses([](Config& config) { config.attention_heads = 5; });
  refuses([](Config& config) { config.encoder.hidden = 257; });
  Config wide = small();
  wide.encoder.hidden = 514;
  wide.attention_heads = 4;
  EXPECT_THROW(Seq2Seq(wide, Cpu{}, DType::f32, 1), ConfigError);
  refuses([](Config& config) {
    config.input_feeding = true;
    config.encoder.variational_recurrent = 0.1;
  });
  refuses([](Config& config) {
    config.attention = Attention::additive;
    config.encoder.temporal_penalty = 0.1;
  });
  for (const Attention kind : {Attention::additive, Attention::concat}) {
    refuses([kind](Config& config) {
      config.attention = kind;
      config.attention_heads = 2;
    });
  }
  refuses([](Config& config) {
    config.scheduled_sampling = true;
    config.encoder.activation_penalty = 0.1;
  });
  refuses([](Config& config) {
    config.scheduled_sampling = true;
    config.output.kind = OutputConfig::Kind::sampled;
  });
  wide.encoder.hidden = 512;
  EXPECT_NO_THROW(Seq2Seq(wide, Cpu{}, DType::f32, 1));
}

}  // namespace
}  // namespace carousel
