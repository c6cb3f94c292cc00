// Two sides that train a model of any kind agree, by the labels and tolerances that its ops carry.
#include <gtest/gtest.h>

#include <set>

#include "kernels/activation/activation.h"
#include "models/encoder.h"
#include "tests/models/compared_side.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

struct Case {
  std::string kind, option;
};

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const CellKind cell : cell_kinds()) {
    if (!cell->variant.empty()) continue;
    result.push_back({"recurrent_lm", "model.cell=" + std::string(cell->name)});
  }
  for (const auto& [name, kind] : activations()) {
    result.push_back({"ngram_lm", "model.activation=" + std::string(name)});
  }
  for (const char* const pooling : {"last", "mean", "max"}) {
    result.push_back({"classifier", std::string("model.pooling=") + pooling});
  }
  return result;
}

using test::Side;

std::string told(const Comparison& comparison) {
  return report_text({.a = "one", .b = "two", .steps = 3, .comparison = comparison});
}

TEST(CompareModels, EveryModelTrainsAsOnTheCpu) {
  for (const Device& device : test::devices()) {
    for (const Case& each : cases()) {
      for (const char* const precision : {"f32", "bf16"}) {
        SCOPED_TRACE(test::device_name(device) + ' ' + each.kind + ' ' + each.option + ' ' +
                     precision);
        Side a(each.kind, {each.option}, Cpu{}, precision),
            b(each.kind, {each.option}, device, precision);
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
      Side a(each.kind, {each.option}, Cpu{}, "f32"),
          b(each.kind, {each.option}, device, "f32", /*seed=*/4);
      Comparison comparison(Rounding::f32);
      compare_step(a.traced, b.traced, comparison);
      ASSERT_NE(comparison.first_wrong(), nullptr) << each.kind << ' ' << each.option;
      EXPECT_EQ(comparison.first_wrong()->name, "dropout after embedding");
    }
  }
}

}  // namespace
}  // namespace carousel
