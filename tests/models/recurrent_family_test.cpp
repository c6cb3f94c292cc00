// Every recurrent cell with every option of an encoder, alone and in pairs: two steps of training
// agree on all devices, in both precisions, and what a cell does not have is refused by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "kernels/common/check.h"
#include "models/recurrent/encoder.h"
#include "tests/models/compared_side.h"
#include "tests/support/covering.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::OptionSet, test::Side;

using Cells = std::vector<std::string>;
const Cells kAll{"lstm", "slstm", "gru", "tanh", "relu", "linear", "indrnn", "indrnn_tanh"};
const Cells kSimple{"tanh", "relu", "linear"};
const Cells kProducts{"lstm", "slstm", "gru", "tanh", "relu", "linear"};

struct EncoderOption {
  std::string key, value;
  Cells cells;                          ///< that have it
  std::vector<std::string> not_with{};  ///< keys that exclude it
};
const std::vector<EncoderOption> kOptions{
    {"peephole", "true", {"lstm"}, {"layer_norm"}},
    {"layer_norm", "true", {"lstm", "gru", "tanh", "relu", "linear"}, {"reset_before"}},
    {"reset_before", "true", {"gru"}},
    {"projection", "7", {"lstm", "slstm", "tanh", "relu", "linear"}},
    {"heads", "3", kProducts, {"projection", "reset_before"}},
    {"bidirectional", "true", kAll},
    {"residual", "true", kAll},
    {"learn_initial_state", "true", kAll},
    {"variational_input", "0.3", kAll},
    {"variational_hidden", "0.3", kAll},
    {"variational_output", "0.3", kAll},
    {"variational_recurrent", "0.3", kProducts},
    {"embedding_dropout", "0.2", kAll},
    {"weight_drop", "0.4", kProducts},
    {"recurrent_dropout", "0.2", {"lstm", "slstm", "gru"}},
    {"zoneout_h", "0.2", kAll, {"projection"}},
    {"zoneout_c", "0.3", {"lstm"}},
    {"cell_clip", "0.2", {"lstm"}},
    {"gradient_clip", "0.001", kAll},
    {"activation_penalty", "2", kAll},
    {"temporal_penalty", "1", kAll},
    {"gradient_norm_penalty",
     "0.1",
     kSimple,
     {"projection", "heads", "layer_norm", "bidirectional", "zoneout_h", "gradient_clip",
      "variational_recurrent"}},
    {"init_recurrent", "identity", kProducts},
    {"chrono_steps", "20", {"lstm", "slstm", "gru"}},
};

bool contains(const Cells& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

bool legal(const std::string& cell, const OptionSet& set) {
  std::vector<std::string> keys;
  for (const std::size_t i : set) keys.push_back(kOptions[i].key);
  // Normalized, an LSTM has a second phase, which has no blocks.
  if (cell == "lstm" && contains(keys, "layer_norm") && contains(keys, "heads")) return false;
  return std::all_of(set.begin(), set.end(), [&](std::size_t i) {
    const EncoderOption& option = kOptions[i];
    return contains(option.cells, cell) &&
           std::none_of(keys.begin(), keys.end(),
                        [&](const std::string& key) { return contains(option.not_with, key); });
  });
}

std::vector<std::string> settings(const std::string& cell, const OptionSet& set) {
  std::vector<std::string> all{"model.cell=" + cell};
  for (const std::size_t i : set) {
    all.push_back("model." + kOptions[i].key + "=" + kOptions[i].value);
  }
  return all;
}
std::string text(const std::vector<std::string>& options) {
  std::string all;
  for (const std::string& option : options) all += option + ' ';
  return all;
}

/// What reads on from window to window cannot read in both directions.
std::string kind_for(const OptionSet& set) {
  for (const std::size_t i : set) {
    if (kOptions[i].key == "bidirectional") return "classifier";
  }
  return "recurrent_lm";
}

/// A normalization multiplies the difference of two devices by gain / deviation at every time step.
/// Gains below 1 and initial states that are not 0 keep it from growing with the length.
void temper(const Parameters& parameters) {
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    const std::string& name = parameters.name(i);
    const bool start = name.find(".start_h") != std::string::npos;
    if (!start && name.find(".gain_") == std::string::npos) continue;
    std::vector<float> values(static_cast<std::size_t>(parameters.weight(i).size()), 0.25F);
    for (std::size_t j = 1; start && j < values.size(); j += 2) values[j] = -0.5F;
    copy_from_host(parameters.weight(i), values.data());
  }
  parameters.refresh_working();
}

void expect_agreement(const std::string& cell, const OptionSet& set) {
  std::vector<std::string> options = settings(cell, set);
  options.emplace_back("train.window=4");
  const std::string kind = kind_for(set);
  if (kind == "classifier") options.emplace_back("model.pooling=mean");
  // Whether a cell state is clipped, and has no gradient then, may hang on the rounding of bf16.
  const bool clips = contains(options, "model.cell_clip=0.2");
  // Where the CPU is the only device, it is compared with itself: the options train without fault.
  const Device device = test::devices().back();
  for (const char* const precision : {"f32", "bf16"}) {
    if (clips && precision == std::string("bf16")) continue;
    SCOPED_TRACE(test::device_name(device) + ' ' + precision + ' ' + text(options));
    // Short texts and windows: a normalized recurrence multiplies differences at each step.
    Side a(kind, options, Cpu{}, precision, 3, 4), b(kind, options, device, precision, 3, 4);
    temper(a.training.model->parameters());
    temper(b.training.model->parameters());
    const bool is_f32 = precision == std::string("f32");
    Comparison comparison(is_f32 ? Rounding::f32 : Rounding::bf16);
    for (int step = 0; step < 2; ++step) compare_step(a.traced, b.traced, comparison);
    ASSERT_NE(comparison.worst(), nullptr);
    // The tolerance of an op is for equal inputs; over two steps it is exceeded, with normalizations
    // up to 4 times.
    const double f32_bound = contains(options, "model.layer_norm=true") ? 30 : 10;
    EXPECT_LE(comparison.worst()->largest.excess(), is_f32 ? f32_bound : 3)
        << report_text({.a = "cpu", .b = "other", .steps = 2, .comparison = comparison});
  }
}

class RecurrentFamily : public testing::TestWithParam<std::string> {};

TEST_P(RecurrentFamily, EveryOptionAloneAgreesOrIsRefused) {
  expect_agreement(GetParam(), {});
  for (std::size_t i = 0; i < kOptions.size(); ++i) {
    if (legal(GetParam(), {i})) {
      expect_agreement(GetParam(), {i});
      continue;
    }
    try {
      const Side side("recurrent_lm", settings(GetParam(), {i}), Cpu{}, "f32");
      ADD_FAILURE() << text(settings(GetParam(), {i})) << "is not refused";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("model." + kOptions[i].key), std::string::npos)
          << error.what();
      EXPECT_NE(std::string(error.what()).find(GetParam()), std::string::npos) << error.what();
    }
  }
}

TEST_P(RecurrentFamily, EveryPairAgrees) {
  const auto sets = test::covering_sets(
      kOptions.size(), [](const OptionSet& set) { return legal(GetParam(), set); });
  EXPECT_LE(sets.size(), 25U);  // 200 in all
  for (const OptionSet& set : sets) expect_agreement(GetParam(), set);
}

TEST_P(RecurrentFamily, WhatExcludesEachOtherIsRefused) {
  for (std::size_t i = 0; i < kOptions.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (!legal(GetParam(), {i}) || !legal(GetParam(), {j}) || legal(GetParam(), {i, j})) continue;
      EXPECT_THROW(Side(kind_for({i, j}), settings(GetParam(), {i, j}), Cpu{}, "f32"), ConfigError)
          << text(settings(GetParam(), {i, j}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cells, RecurrentFamily, testing::ValuesIn(kAll),
                         [](const auto& test) { return test.param; });

TEST(RecurrentFamilyTable, HasEveryCell) {
  Cells cells;
  for (const CellKind cell : cell_kinds()) {
    if (cell->variant.empty()) cells.emplace_back(cell->name);
  }
  std::sort(cells.begin(), cells.end());
  Cells tested = kAll;
  std::sort(tested.begin(), tested.end());
  EXPECT_EQ(cells, tested);
}

}  // namespace
}  // namespace carousel
