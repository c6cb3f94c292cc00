#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <tuple>

#include "kernels/common/bf16.h"
#include "kernels/common/check.h"
#include "kernels/common/random.h"
#include "kernels/common/scratch.h"
#include "kernels/common/view.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

// The known answers of the authors' Random123 distribution for philox4x32 with ten rounds.
TEST(Philox, KnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  EXPECT_EQ(philox({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, {0xFFFFFFFF, 0xFFFFFFFF}),
            (Words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(philox({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
            (Words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

TEST(RandomSource, NeighbouringSeedsStreamsStepsAndBlocksDiffer) {
  const RandomSource a{.seed = 1, .stream = 2};
  const auto base = a.words(3, 4);
  EXPECT_NE(base, (RandomSource{.seed = 2, .stream = 2}.words(3, 4)));
  EXPECT_NE(base, (RandomSource{.seed = 1, .stream = 3}.words(3, 4)));
  EXPECT_NE(base, a.words(4, 4));
  EXPECT_NE(base, a.words(3, 5));
  EXPECT_EQ(base, a.words(3, 4));
}

TEST(Bf16, RoundsToNearestTiesToEven) {
  EXPECT_EQ(static_cast<float>(bf16(1.0F + 0x1p-8F)), 1.0F);              // a tie, down to even
  EXPECT_EQ(static_cast<float>(bf16(1.0F + 0x3p-8F)), 1.0F + 0x4p-8F);    // a tie, up to even
  EXPECT_EQ(static_cast<float>(bf16(1.0F + 0x1.1p-8F)), 1.0F + 0x2p-8F);  // above a tie
  EXPECT_TRUE(std::isinf(static_cast<float>(bf16(std::numeric_limits<float>::max()))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::numeric_limits<float>::quiet_NaN()))));
}

/// An op of any template shape that runs in double, without the pass that CUDA would need.
template <class From, class To = From>
struct AnyOp {
  mutable int runs = 0;
  void check() const {}
  void run(const Cpu&) const { ++runs; }
  void run(const Cuda&) const
      requires(!std::is_same_v<From, double> && !std::is_same_v<To, double>) {
    ++runs;
  }
  std::size_t scratch_bytes(const Cpu&) const { return 8; }
  std::size_t scratch_bytes(const Cuda&) const { return 8; }
};

TEST(Dispatch, RefusesDoubleOnCudaWhereverItStandsInTheType) {
  const auto in_double = []<class Op>(const Op& op) {
    run(Device(Cpu{}), op);
    EXPECT_EQ(op.runs, 1);
    EXPECT_EQ(scratch_bytes(Device(Cpu{}), op), 8U);
    if (test::cuda_device() == nullptr) return;
    const auto refusal = [&](const auto& use) -> std::string {
      try {
        use();
      } catch (const ConfigError& e) {
        return e.what();
      }
      return "none";
    };
    const std::string want =
        std::string(kOpName<Op>.data()) + ": f64 on CUDA, expected f32 or bf16";
    EXPECT_EQ(refusal([&] { run(*test::cuda_device(), op); }), want);
    EXPECT_EQ(refusal([&] { scratch_bytes(*test::cuda_device(), op); }), want);
    EXPECT_EQ(op.runs, 1);
  };
  in_double(AnyOp<double>{});
  in_double(AnyOp<float, double>{});
  for (const Device& device : test::devices()) {
    const AnyOp<float> op;
    run(device, op);
    EXPECT_EQ(op.runs, 1);
  }
}

TEST(View, IndexesSlowestFirst) {
  int values[6] = {0, 1, 2, 3, 4, 5};
  const View<int, 2> view(values, {2, 3});
  EXPECT_EQ(view(1, 0), 3);
  EXPECT_EQ(view.size(), 6);
  EXPECT_FALSE((View<const int, 2>{}.present()));
}

TEST(Check, MessagesNameWhatWasFoundAndExpected) {
  try {
    expect_extent("recurrent_sequence: weight_hh columns", 3, 4);
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(), "recurrent_sequence: weight_hh columns is 3, expected 4");
  }
}

TEST(ScratchCutter, CutsWhatItCounted) {
  ScratchCutter counting;
  EXPECT_EQ(counting.take<float>(3), nullptr);
  EXPECT_EQ(counting.take<double>(0), nullptr);
  counting.take<double>(65);
  const Memory memory(Cpu{}, counting.bytes());
  const View<std::byte, 1> scratch(static_cast<std::byte*>(memory.data()),
                                   {static_cast<std::int64_t>(counting.bytes())});
  {
    ScratchCutter cut(Cpu{}, scratch);
    float* const a = cut.take<float>(3);
    double* const b = cut.take<double>(65);
    EXPECT_NO_THROW(cut.expect_enough("scratch"));
    EXPECT_EQ(static_cast<void*>(a), memory.data());
    EXPECT_GE(reinterpret_cast<std::byte*>(b) - reinterpret_cast<std::byte*>(a), 256);
    a[2] = 1;
    b[64] = 1;
#ifdef __SANITIZE_ADDRESS__
    EXPECT_DEATH(a[3] = 1, "use-after-poison");
    EXPECT_DEATH(b[65] = 1, "use-after-poison");
#endif
    cut.take<float>(1);
    EXPECT_THROW(cut.expect_enough("scratch"), ShapeError);
  }
  std::fill_n(scratch.data, scratch.extent[0], std::byte{0});  // nothing stays forbidden
}

TEST(Close, NaNFails) {
  const Tolerance loose{.absolute = 1e9, .relative = 1};
  EXPECT_FALSE(test::close(std::vector<float>{NAN}, std::vector<float>{0}, loose));
  EXPECT_FALSE(test::close(std::vector<float>{0}, std::vector<float>{NAN}, loose));
  EXPECT_FALSE(test::close(std::vector<float>{INFINITY}, std::vector<float>{0}, loose));
  EXPECT_TRUE(test::close(std::vector<float>{1}, std::vector<float>{2}, loose));
}

TEST(TestSupport, PrintsADeviceByItsName) {
  EXPECT_EQ(testing::PrintToString(Device(Cpu{})), "cpu");
  EXPECT_EQ(testing::PrintToString(std::tuple(test::devices().front(), 3)), "(cpu, 3)");
  if (test::cuda_device() != nullptr) {
    EXPECT_EQ(testing::PrintToString(*test::cuda_device()), "cuda");
  }
}

}  // namespace
}  // namespace carousel
