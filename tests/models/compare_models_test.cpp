// Two sides that train a model of any kind agree, by the labels and tolerances that its ops carry.
#include <gtest/gtest.h>

#include <set>

#include "engine/comparison/comparison_report.h"
#include "engine/data/labelled_data.h"
#include "engine/data/text_data.h"
#include "engine/run/training.h"
#include "models/encoder.h"
#include "models/registry.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

struct Case {
  std::string kind, option;
};

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const CellKind cell : cell_kinds()) {
    result.push_back({"recurrent_lm", "model.cell=" + std::string(cell->name)});
  }
  for (const char* const pooling : {"last", "mean", "max"}) {
    result.push_back({"classifier", std::string("model.pooling=") + pooling});
  }
  return result;
}

/// Texts of 1 to 30 letters with one of three labels, or all of them as one stream.
Corpus corpus_of(const std::string& data_kind) {
  std::string labelled, stream;
  for (int i = 0; i < 40; ++i) {
    std::string text;
    for (int n = 0; n <= i * 7 % 30; ++n) text += static_cast<char>('a' + (i + n * n) % 11);
    labelled += std::string(1, "pqr"[i % 3]) + '\t' + text + '\n';
    stream += text;
  }
  if (data_kind == "labelled") return LabelledData().corpus(Text::in_memory(labelled));
  return TextData().corpus({Text::in_memory(stream)});
}

/// A side of a comparison, made as the driver makes it.
struct Side {
  Side(const Case& of, const Device& device, const char* precision, std::uint64_t seed = 3)
      : config(text(of), "config", model_registry(), {.set = {of.option}, .precision = precision}),
        corpus(corpus_of(config.data_kind)),
        training(config, corpus, device),
        traced(training.run, {.schedule = config.schedule, .seed = seed}) {}

  static std::string text(const Case& of) {
    return "[model]\nkind = '" + of.kind +
           "'\nembed = 6\nhidden = 9\nlayers = 2\ndropout = 0.3\nlabel_smoothing = 0.1\n"
           "[data]\nkind = '" +
           (of.kind == "classifier" ? "labelled" : "text") +
           "'\ntext = 'unread'\n[train]\nbatch = 5\nwindow = 7\n[optimizer]\nkind = 'adamw'\n";
  }

  RunConfig config;
  Corpus corpus;
  Training training;
  TracedTraining traced;
};

std::string told(const Comparison& comparison) {
  return report_text({.a = "one", .b = "two", .steps = 3, .comparison = comparison});
}

TEST(CompareModels, EveryModelTrainsAsOnTheCpu) {
  for (const Device& device : test::devices()) {
    for (const Case& each : cases()) {
      for (const char* const precision : {"f32", "bf16"}) {
        SCOPED_TRACE(test::device_name(device) + ' ' + each.kind + ' ' + each.option + ' ' +
                     precision);
        Side a(each, Cpu{}, precision), b(each, device, precision);
        Comparison comparison(precision == std::string("f32") ? Rounding::f32 : Rounding::bf16);
        for (int step = 0; step < 3; ++step) compare_step(a.traced, b.traced, comparison);
        EXPECT_TRUE(comparison.holds()) << told(comparison);

        std::set<std::string> names;
        for (const TracedTensor& tensor : b.traced.gradients()) {
          EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name << " is there twice";
        }
        for (const TracedTensor& tensor : b.traced.update()) {
          EXPECT_TRUE(names.insert(tensor.name).second) << tensor.name << " is there twice";
        }
        EXPECT_TRUE(names.contains("gradient of output.bias"));
      }
    }
  }
}

TEST(CompareModels, OtherMasksAreSeenInEveryModel) {
  for (const Device& device : test::devices()) {
    for (const Case& each : cases()) {
      Side a(each, Cpu{}, "f32"), b(each, device, "f32", /*seed=*/4);
      Comparison comparison(Rounding::f32);
      compare_step(a.traced, b.traced, comparison);
      ASSERT_NE(comparison.first_wrong(), nullptr) << each.kind << ' ' << each.option;
      EXPECT_EQ(comparison.first_wrong()->name, "dropout after embedding");
    }
  }
}

}  // namespace
}  // namespace carousel
