#include "kernels/common/range.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/copy/copy.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "tests/emulation/include/nvtx3/nvToolsExt.h"
#include "tests/support/buffer.h"

namespace carousel {
namespace {

TEST(Range, AnOpIsNamedAsItsTypeIs) {
  EXPECT_STREQ(kOpName<RecurrentSequenceForward<float>>.data(), "RecurrentSequenceForward<float>");
  EXPECT_STREQ((kOpName<Cast<float, bf16>>.data()), "Cast<float, bf16>");
  EXPECT_STREQ(kOpName<GatherWindows>.data(), "GatherWindows");
}

TEST(Range, OpsStandWithinWhatIsAroundThem) {
  const Device cpu = Cpu{};
  const test::Buffer<float> to(cpu, std::size_t{3});
  const Fill<float> fill{.to = to.view(3), .value = 1};
  emulation::record_ranges();
  {
    const Range step("step");
    run(cpu, fill);
    const Range layer("layer 1");
    run(cpu, fill);
  }
  run(cpu, fill);
  EXPECT_EQ(emulation::recorded_ranges(),
            (std::vector<std::string>{"step", "step/Fill<float>", "step/layer 1",
                                      "step/layer 1/Fill<float>", "Fill<float>"}));
  run(cpu, fill);
  EXPECT_TRUE(emulation::recorded_ranges().empty());
}

}  // namespace
}  // namespace carousel
