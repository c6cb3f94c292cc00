#include "kernels/common/journal.h"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/common/range.h"
#include "kernels/common/symbol.h"
#include "kernels/copy/copy.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/matmul/matmul.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using Entries = std::vector<Journal::Entry>;

void note(const char* line) {
  if (Journal* const journal = Journal::mine()) journal->note(line);
}

TEST(Journal, RangesMakeATreeAndEqualPartsAreCounted) {
  const Journal journal;
  for (int step = 0; step < 3; ++step) {
    const Range range("step");
    for (int i = 0; i < 2; ++i) {
      const Range layer("layer");
      note(step == 2 ? "slow" : "fast");
      note("copy");
    }
    note("end");
  }
  const auto step = [](const char* kind, std::int64_t count) {
    return Journal::Entry{
        .text = "step",
        .count = count,
        .entries = {{.text = "layer", .count = 2, .entries = {{.text = kind}, {.text = "copy"}}},
                    {.text = "end"}}};
  };
  EXPECT_EQ(journal.entries(), (Entries{step("fast", 2), step("slow", 1)}));
}

TEST(Journal, HearsItsOwnThreadWhileItLives) {
  note("before");
  {
    const Range around("around");
    const Journal journal;
    EXPECT_THROW(Journal(), std::logic_error);
    std::thread(note, "elsewhere").join();
    { const Range left("left"); }
    note("here");
    EXPECT_EQ(journal.entries(), (Entries{{.text = "left"}, {.text = "here"}}));
  }
  EXPECT_EQ(Journal::mine(), nullptr);
}

TEST(Journal, ARangeOpenedBeforeItClosesNothing) {
  auto around = std::make_unique<Range>("around");
  const Journal journal;
  note("in");
  around.reset();
  note("after");
  EXPECT_EQ(journal.entries(), (Entries{{.text = "in"}, {.text = "after"}}));
}

TEST(ReadableSymbol, IsTheFunctionWithItsTemplateArguments) {
  // As nvcc and as g++ write a kernel in an anonymous namespace.
  EXPECT_EQ(readable_symbol(
                "_ZN8carousel67_GLOBAL__N__6c65942e_28_linear_cross_entropy_cuda_cu_a1f04f47_"
                "2625131linear_cross_entropy_row_kernelINS_4bf16ELi32EEEvNS_18LinearCrossEntropyIT_"
                "EENS0_5ChunkIS4_EE"),
            "linear_cross_entropy_row_kernel<bf16, 32>");
  EXPECT_EQ(readable_symbol("_ZN8carousel12_GLOBAL__N_111adam_kernelIfEEvNS_4AdamIT_EE"),
            "adam_kernel<float>");
  EXPECT_EQ(readable_symbol("not mangled"), "not mangled");
}

class JournalOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, JournalOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(JournalOn, AnOpsKernelsAreNamedWithTheirLaunch) {
  const Device device = GetParam();
  const test::Buffer<float> to(device, std::size_t{300});
  const Journal journal;
  run(device, Fill<float>{.to = to.view(300), .value = 1});
  Journal::Entry expected{.text = "Fill<float>"};
  if (!is_cpu(device)) expected.entries = {{.text = "kernel fill_kernel<float>, grid 2 × 256"}};
  EXPECT_EQ(journal.entries(), Entries{expected});
}

TEST_P(JournalOn, AProductIsToldWithItsShapeAndAlgorithm) {
  const Device device = GetParam();
  const test::Buffer<float> a(device, std::vector<float>(140)), b(device, std::vector<float>(63)),
      bias(device, std::vector<float>(9)), c(device, std::size_t{180});
  const Journal journal;
  run(device, Matmul<float>{.a = a.view(20, 7),
                            .b = b.view(9, 7),
                            .bias = bias.view(9),
                            .c = c.view(20, 9),
                            .transpose_b = true});
  ASSERT_EQ(journal.entries().size(), 1U);
  ASSERT_EQ(journal.entries()[0].entries.size(), 1U);
  const std::string& line = journal.entries()[0].entries[0].text;
  EXPECT_TRUE(line.starts_with("product [20, 7]·[9, 7]ᵀ + bias, f32: ")) << line;
  EXPECT_GT(line.size(), std::string("product [20, 7]·[9, 7]ᵀ + bias, f32: ").size()) << line;
}

TEST(Journal, SaysWhyRowsAreReadValueByValue) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  const Device& device = *test::cuda_device();
  const auto lines = [&](std::int64_t vocab) {
    const test::Buffer<float> logits(device, std::vector<float>(static_cast<std::size_t>(vocab))),
        loss(device, std::size_t{1}), lse(device, std::size_t{1});
    const test::Buffer<std::int32_t> target(device, std::vector<std::int32_t>{0});
    const Journal journal;
    run(device, CrossEntropyForward<float>{.logits = logits.view(1, vocab),
                                           .target = target.view(1),
                                           .loss = loss.view(1),
                                           .lse = lse.view(1)});
    return journal.entries().at(0).entries;
  };
  EXPECT_EQ(lines(8).size(), 1U);
  ASSERT_EQ(lines(7).size(), 2U);
  EXPECT_EQ(lines(7)[0].text, "refused: accesses of 128 bits, for V = 7 is no multiple of 4");
}

}  // namespace
}  // namespace carousel
