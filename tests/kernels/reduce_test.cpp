#include "kernels/reduce/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/reduce.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;
using test::stored;

template <class T>
std::vector<T> random_values(std::size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> number(-1, 1);
  std::vector<double> values(count);
  for (double& v : values) v = number(engine);
  return stored<T>(values);
}

template <class T>
std::vector<Accumulator<T>> column_sum(const Device& device, const std::vector<T>& x,
                                       const std::vector<Accumulator<T>>& before, bool accumulate) {
  using Acc = Accumulator<T>;
  const auto columns = static_cast<std::int64_t>(before.size());
  const auto rows = columns == 0 ? 0 : static_cast<std::int64_t>(x.size()) / columns;
  const Buffer<T> in(device, x);
  const Buffer<Acc> sum =
      accumulate ? Buffer<Acc>(device, before) : Buffer<Acc>(device, before.size());
  const std::int64_t scratch_size = column_sum_scratch(rows, columns);
  const Buffer<Acc> scratch(device, static_cast<std::size_t>(scratch_size));
  run(device, ColumnSum<T>{.x = in.view(rows, columns),
                           .sum = {sum.view(columns), accumulate},
                           .scratch = scratch.view(scratch_size)});
  return sum.read();
}

TEST(ColumnSum, ASumWorkedByHand) {
  for (const Device& device : test::devices()) {
    const std::vector<float> x{1, 2, 3, 10, 20, 30};
    EXPECT_EQ(column_sum(device, x, {5, 5, 5}, false), (std::vector<float>{11, 22, 33}));
    EXPECT_EQ(column_sum(device, x, {5, 5, 5}, true), (std::vector<float>{16, 27, 38}));
  }
}

template <class T>
double worst_over_shapes(const std::vector<std::pair<std::size_t, std::size_t>>& shapes,
                         const Tolerance& tolerance, const std::vector<Device>& devices) {
  double worst = 0;
  for (const auto& [rows, columns] : shapes) {
    for (const bool accumulate : {false, true}) {
      const auto x = random_values<T>(rows * columns, 31);
      const auto before = random_values<Accumulator<T>>(columns, 32);
      const auto want = reference::column_sum(
          as_double(x), accumulate ? as_double(before) : std::vector<double>(columns));
      for (const Device& device : devices) {
        const auto got = column_sum(device, x, before, accumulate);
        EXPECT_TRUE(test::close(got, want, tolerance))
            << test::device_name(device) << ' ' << rows << 'x' << columns;
        worst = std::max(worst, test::worst_excess(got, want, tolerance));
      }
    }
  }
  return worst;
}

// None, one, around a warp, a strip and a tile, one group and several, the last of them short, the
// gates of a small LSTM, and the longest sum the contract speaks of.
const std::vector<std::pair<std::size_t, std::size_t>> kShapes{
    {0, 5},    {3, 0},    {1, 1},    {7, 31},    {63, 33}, {65, 127},
    {64, 255}, {67, 257}, {1030, 3}, {300, 512}, {4096, 9}};

TEST(ColumnSum, MatchesTheOracleAndTheRecordedWorstErrorHolds) {
  const auto& [f32, mixed] = kColumnSumTolerance;
  test::expect_recorded(worst_over_shapes<float>(kShapes, f32, test::devices()), f32);
  test::expect_recorded(worst_over_shapes<bf16>(kShapes, mixed, test::devices()), mixed);
  worst_over_shapes<double>(kShapes, {.absolute = 1e-12, .relative = 1e-12}, {Device(Cpu{})});
}

TEST(ColumnSum, BadShapesAreNamed) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 12);
  try {
    run(cpu, ColumnSum<float>{.x = x.view(3, 4), .sum = {x.view(3)}});
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(), "reduce: length of the column sum is 3, expected 4");
  }
}

TEST(ColumnSum, MissingScratchIsRefusedOnCuda) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  const Device& cuda = *test::cuda_device();
  ASSERT_GT(column_sum_scratch(64, 2), 0);
  const Buffer<float> x(cuda, std::vector<float>(128)), sum(cuda, 2);
  EXPECT_THROW(run(cuda, ColumnSum<float>{.x = x.view(64, 2), .sum = {sum.view(2)}}), ShapeError);
}

TEST(ColumnSum, ScratchStaysSmallWhateverTheShape) {
  for (const std::int64_t columns : {1, 255, 256, 257, 4096, 50'257, 70'000}) {
    EXPECT_LE(column_sum_scratch(std::int64_t{1} << 30, columns), 67'584) << columns;
  }
}

TEST(ColumnSum, AColumnDoesNotDependOnItsNeighbours) {
  for (const Device& device : test::devices()) {
    const auto wide = random_values<float>(96 * 3, 33);
    std::vector<float> narrow;
    for (std::size_t i = 1; i < wide.size(); i += 3) narrow.push_back(wide[i]);
    std::vector<float> poisoned = wide;
    for (std::size_t i = 0; i < wide.size(); i += 3) poisoned[i] = NAN;
    const auto sums = column_sum(device, poisoned, {0, 0, 0}, false);
    EXPECT_TRUE(std::isnan(sums[0]));
    EXPECT_EQ(sums[1], column_sum(device, narrow, {0}, false)[0]);
  }
}

}  // namespace
}  // namespace carousel
