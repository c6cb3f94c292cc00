#include "kernels/combine/combine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/combine.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using reference::Columns;
using test::Buffer;

/// Numbers of many magnitudes, as T stores them.
template <class T>
std::vector<double> random_values(std::size_t count, std::mt19937_64& random) {
  std::vector<double> values(count);
  for (double& v : values) {
    v = std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 12) - 59) - 4;
  }
  return test::as_double(test::stored<T>(values));
}

/// What `to` holds after the op.
template <class T>
std::vector<double> copy_columns(const Device& device, std::size_t rows, const Columns& from,
                                 const Columns& to, std::size_t width, bool accumulate) {
  const Buffer<T> in(device, test::stored<T>(from.values)), out(device, test::stored<T>(to.values));
  run(device, CopyColumns<T>{.from = in.view(rows, from.row_width),
                             .first_from = static_cast<std::int64_t>(from.first),
                             .to = {out.view(rows, to.row_width), accumulate},
                             .first_to = static_cast<std::int64_t>(to.first),
                             .width = static_cast<std::int64_t>(width)});
  return test::as_double(out.read());
}

template <class T>
std::vector<double> add(const Device& device, const std::vector<double>& a,
                        const std::vector<double>& b) {
  const Buffer<T> first(device, test::stored<T>(a)), second(device, test::stored<T>(b));
  const Buffer<T> y(device, a.size());
  run(device, Add<T>{.a = first.view(a.size()), .b = second.view(a.size()), .y = y.view(a.size())});
  return test::as_double(y.read());
}

// Leg 1: worked by hand. In bf16, of 8 bits, 256 + 1 is a tie, which goes to the even 256.
TEST(CopyColumns, WritesOrAddsTheColumnsAndLeavesTheOthers) {
  const Columns from{{1, 2, 3, 4, 5, 6}, 3, 1}, to{{10, 20, 30, 256, 50, 60, 70, 256}, 4, 2};
  for (const Device& device : test::devices()) {
    EXPECT_EQ(copy_columns<float>(device, 2, from, to, 2, false),
              (std::vector<double>{10, 20, 2, 3, 50, 60, 5, 6}));
    EXPECT_EQ(copy_columns<bf16>(device, 2, from, to, 2, true),
              (std::vector<double>{10, 20, 32, 260, 50, 60, 75, 262}));
  }
}

TEST(Add, RoundsItsSumOnce) {
  const std::vector<double> a{1, 256, 256, -3e38, INFINITY}, b{2, 1, 3, -3e38, -INFINITY};
  for (const Device& device : test::devices()) {
    const auto y = add<bf16>(device, a, b);
    EXPECT_EQ(std::vector<double>(y.begin(), y.end() - 1),
              (std::vector<double>{3, 256, 260, -INFINITY}));
    EXPECT_TRUE(std::isnan(y.back()));
  }
}

// Leg 3, exact: every device and type against the oracle. Nothing, one, around a vector and a warp,
// aligned or not on either side, and more than one task's worth.
struct Size {
  std::size_t rows, from_width, first_from, to_width, first_to, width;
};
const std::vector<Size> kSizes{
    {0, 3, 0, 5, 2, 3},         {3, 0, 0, 4, 4, 0},           {4, 5, 2, 3, 1, 0},
    {1, 1, 0, 1, 0, 1},         {5, 4, 0, 8, 4, 4},           {7, 8, 0, 24, 16, 8},
    {3, 9, 1, 7, 0, 7},         {33, 3, 1, 2, 1, 1},          {2, 16, 1, 16, 1, 15},
    {6, 40, 8, 31, 0, 31},      {5, 32, 0, 65, 33, 32},       {257, 33, 0, 66, 33, 33},
    {3, 1000, 3, 1030, 5, 990}, {700, 128, 0, 256, 128, 128}, {1, 70'001, 0, 70'001, 0, 70'001}};

template <class T>
void columns_are_the_oracles() {
  std::mt19937_64 random(7);
  for (const Size& s : kSizes) {
    const Columns from{random_values<T>(s.rows * s.from_width, random), s.from_width, s.first_from};
    const Columns to{random_values<T>(s.rows * s.to_width, random), s.to_width, s.first_to};
    for (const bool accumulate : {false, true}) {
      const auto want = reference::copy_columns(from, to, s.width, accumulate);
      for (const Device& device : test::devices_of<T>()) {
        EXPECT_EQ(copy_columns<T>(device, s.rows, from, to, s.width, accumulate),
                  test::as_double(test::stored<T>(want)))
            << test::device_name(device) << " " << s.rows << " rows of " << s.width;
      }
    }
  }
}

TEST(CopyColumns, SweepEqualsTheOracleBitForBitOnEveryDevice) {
  columns_are_the_oracles<float>();
  columns_are_the_oracles<bf16>();
  columns_are_the_oracles<double>();
}

template <class T>
void sums_are_the_oracles() {
  std::mt19937_64 random(8);
  for (const std::size_t size : {0, 1, 3, 4, 5, 7, 8, 9, 31, 33, 1023, 1025, 2049, 70'001}) {
    const auto a = random_values<T>(size, random), b = random_values<T>(size, random);
    for (const Device& device : test::devices_of<T>()) {
      EXPECT_EQ(add<T>(device, a, b), test::as_double(test::stored<T>(reference::add(a, b))))
          << test::device_name(device) << " " << size;
    }
  }
}

TEST(Add, SweepEqualsTheOracleBitForBitOnEveryDevice) {
  sums_are_the_oracles<float>();
  sums_are_the_oracles<bf16>();
  sums_are_the_oracles<double>();
}

// Leg 4: the contract on bad input.
TEST(CopyColumns, RefusesWhatItsContractRefuses) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 12), y(cpu, 12);
  const auto op = [&](std::int64_t rows, std::int64_t first_from, std::int64_t first_to,
                      std::int64_t width) {
    return CopyColumns<float>{.from = x.view(2, 3),
                              .first_from = first_from,
                              .to = {y.view(rows, 4)},
                              .first_to = first_to,
                              .width = width};
  };
  EXPECT_NO_THROW(op(2, 1, 2, 2).check());
  EXPECT_THROW(run(cpu, op(3, 1, 2, 2)), ShapeError);
  EXPECT_THROW(run(cpu, op(2, 2, 2, 2)), ShapeError);
  EXPECT_THROW(run(cpu, op(2, 1, 3, 2)), ShapeError);
  EXPECT_THROW(run(cpu, op(2, -1, 2, 2)), ShapeError);
  EXPECT_THROW(run(cpu, op(2, 1, -1, 2)), ShapeError);
  EXPECT_THROW(run(cpu, op(2, 1, 2, -1)), ShapeError);
}

TEST(Add, RefusesWhatItsContractRefuses) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 3), y(cpu, 3);
  EXPECT_THROW(run(cpu, Add<float>{.a = x.view(3), .b = x.view(2), .y = y.view(3)}), ShapeError);
  EXPECT_THROW(run(cpu, Add<float>{.a = x.view(3), .b = x.view(3), .y = y.view(2)}), ShapeError);
}

}  // namespace
}  // namespace carousel
