#include "kernels/copy/copy.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/copy.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;

// None, one, around a vector, a warp and a block of threads, and several chunks of the CPU's.
const std::vector<std::size_t> kSizes{0, 1, 7, 8, 9, 31, 32, 33, 255, 257, 2049, 70'001};

template <class T>
void fill_writes_every_element(T value) {
  for (const Device& device : test::devices_of<T>()) {
    for (const std::size_t size : kSizes) {
      // One element either side, which must stay as it is.
      Buffer<T> to(device, std::vector<T>(size + 2, T(3.0F)));
      run(device, Fill<T>{.to = {to.view(size + 2).data + 1, {static_cast<std::int64_t>(size)}},
                          .value = value});
      std::vector<T> want(size + 2, value);
      want.front() = want.back() = T(3.0F);
      const auto got = to.read();
      for (std::size_t i = 0; i < size + 2; ++i) {
        ASSERT_EQ(got[i], want[i]) << test::device_name(device) << ", " << i << " of " << size;
      }
    }
  }
}

TEST(Fill, WritesEveryElementAndNothingElse) {
  fill_writes_every_element<float>(-1.5F);
  fill_writes_every_element<bf16>(bf16(0.25F));
  fill_writes_every_element<double>(1e300);
  fill_writes_every_element<std::int32_t>(-7);
  fill_writes_every_element<std::int64_t>(std::int64_t{1} << 40);
}

/// Casts, through views that begin one element in when `shift` is 1, and reads back.
template <class From, class To>
std::vector<To> cast(const Device& device, const std::vector<From>& values, std::size_t shift) {
  const auto count = static_cast<std::int64_t>(values.size() - shift);
  Buffer<From> from(device, values);
  Buffer<To> to(device, values.size());
  run(device, Cast<From, To>{.from = {from.view(values.size()).data + shift, {count}},
                             .to = {to.view(values.size()).data + shift, {count}}});
  std::vector<To> got = to.read();
  got.erase(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(shift));
  return got;
}

TEST(Cast, RoundsToTheNearestBf16) {  // worked by hand
  for (const Device& device : test::devices()) {
    const std::vector<float> values{1.0F + 0x1p-8F, 1.0F + 0x3p-8F, -0.0F, 3e38F, INFINITY, NAN,
                                    0x1p-133F};
    const auto got = cast<float, bf16>(device, values, 0);
    EXPECT_EQ(static_cast<float>(got[0]), 1.0F);            // a tie, down to even
    EXPECT_EQ(static_cast<float>(got[1]), 1.0F + 0x4p-8F);  // a tie, up to even
    EXPECT_EQ(got[2].bits, 0x8000);
    EXPECT_EQ(static_cast<float>(got[3]), 0x1.C4p127F);
    EXPECT_EQ(static_cast<float>(got[4]), INFINITY);
    EXPECT_TRUE(std::isnan(static_cast<float>(got[5])));
    EXPECT_EQ(static_cast<float>(got[6]), 0x1p-133F);  // subnormal, and not flushed
  }
}

// Leg 3, exact: floats of every magnitude against arithmetic that knows nothing of bits.
TEST(Cast, SweepAgreesWithTheOracleOnEveryDevice) {
  std::mt19937_64 random(31);
  for (const Device& device : test::devices()) {
    for (const std::size_t size : kSizes) {
      std::vector<float> values(size + 1);
      for (float& v : values) v = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
      for (const std::size_t shift : {0U, 1U}) {
        const auto narrow = cast<float, bf16>(device, values, shift);
        const auto wide = cast<bf16, float>(device, narrow, 0);
        for (std::size_t i = 0; i < narrow.size(); ++i) {
          const double want = reference::nearest_bf16(static_cast<double>(values[i + shift]));
          const auto got = static_cast<double>(wide[i]);
          ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
              << test::device_name(device) << ": " << values[i + shift] << " became " << got
              << ", expected " << want;
        }
      }
    }
  }
}

template <class T>
void copy_keeps_bits() {
  std::mt19937_64 random(37);
  for (const Device& device : test::devices_of<T>()) {
    for (const std::size_t size : kSizes) {
      std::vector<std::array<std::byte, sizeof(T)>> bits(size + 1);
      for (auto& element : bits) {
        for (std::byte& b : element) b = static_cast<std::byte>(random());
      }
      std::vector<T> values(bits.size());
      std::memcpy(static_cast<void*>(values.data()), bits.data(), bits.size() * sizeof(T));
      const auto got = cast<T, T>(device, values, 1);
      ASSERT_EQ(got.size(), size);
      if (size > 0) {
        EXPECT_EQ(std::memcmp(got.data(), values.data() + 1, size * sizeof(T)), 0);
      }
    }
  }
}

TEST(Cast, ToTheSameTypeKeepsEveryBitEvenOfNaN) {
  copy_keeps_bits<float>();
  copy_keeps_bits<bf16>();
  copy_keeps_bits<double>();
  copy_keeps_bits<std::int32_t>();
  copy_keeps_bits<std::int64_t>();
}

TEST(Cast, RefusesExtentsThatDisagree) {
  const Device cpu = Cpu{};
  Buffer<float> from(cpu, 3);
  Buffer<bf16> to(cpu, 4);
  EXPECT_THROW(run(cpu, Cast<float, bf16>{.from = from.view(3), .to = to.view(4)}), ShapeError);
}

reference::Windows gather(const Device& device, const std::vector<std::int32_t>& stream,
                          const std::vector<std::int64_t>& position, std::size_t steps,
                          std::int32_t document_end,
                          const std::vector<std::int32_t>& restart = {}) {
  const std::size_t rows = position.size();
  Buffer<std::int32_t> tokens(device, stream), token(device, steps * rows),
      target(device, steps * rows), reset(device, steps * rows), anew(device, restart);
  Buffer<std::int64_t> positions(device, position);
  run(device, GatherWindows{.stream = tokens.view(stream.size()),
                            .position = positions.view(rows),
                            .restart = restart.empty() ? View<const std::int32_t, 1>{}
                                                       : anew.view(restart.size()),
                            .document_end = document_end,
                            .token = token.view(steps, rows),
                            .target = target.view(steps, rows),
                            .reset = reset.view(steps, rows)});
  return {token.read(), target.read(), reset.read()};
}

TEST(GatherWindows, CutsWindowsAndMarksDocuments) {  // worked by hand: 9 ends a document
  for (const Device& device : test::devices()) {
    const auto w = gather(device, {5, 9, 6, 7}, {0, 2}, 3, 9);
    EXPECT_EQ(w.token, (std::vector<std::int32_t>{5, 6, 9, 7, 6, 0}));
    EXPECT_EQ(w.target, (std::vector<std::int32_t>{9, 7, 6, -1, 7, -1}));
    EXPECT_EQ(w.reset, (std::vector<std::int32_t>{1, 1, 0, 0, 1, 0}));
    // Rows 1 and 2 begin anew, but the last is all padding.
    const auto restarted = gather(device, {5, 9, 6, 7}, {1, 1, 4}, 2, -1, {0, 1, 1});
    EXPECT_EQ(restarted.reset, (std::vector<std::int32_t>{0, 1, 0, 0, 0, 0}));
  }
}

TEST(GatherWindows, SweepAgreesWithTheOracleOnEveryDevice) {
  std::mt19937_64 random(41);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  for (const Device& device : test::devices()) {
    for (int round = 0; round < 40; ++round) {
      std::vector<std::int32_t> stream(below(200));
      for (auto& token : stream) token = static_cast<std::int32_t>(below(5));
      std::vector<std::int64_t> position(below(40));
      for (auto& p : position) p = static_cast<std::int64_t>(below(260)) - 30;
      const std::size_t steps = below(50);
      const std::int32_t document_end = static_cast<std::int32_t>(below(4)) - 1;
      std::vector<std::int32_t> restart(round % 3 == 0 ? 0 : position.size());
      for (auto& r : restart) r = static_cast<std::int32_t>(below(3)) - 1;
      const auto want = reference::gather_windows(stream, position, steps, document_end, restart);
      const auto got = gather(device, stream, position, steps, document_end, restart);
      EXPECT_EQ(got.token, want.token) << "round " << round;
      EXPECT_EQ(got.target, want.target) << "round " << round;
      EXPECT_EQ(got.reset, want.reset) << "round " << round;
    }
  }
}

TEST(GatherWindows, PositionsAtTheEdgesOfTheirTypeArePadding) {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
  for (const Device& device : test::devices()) {
    const auto w = gather(device, {1, 2, 3}, {kMax, kMin}, 4, 1);
    EXPECT_EQ(w.token, std::vector<std::int32_t>(8, 0));
    EXPECT_EQ(w.target, std::vector<std::int32_t>(8, GatherWindows::kNoTarget));
    EXPECT_EQ(w.reset, std::vector<std::int32_t>(8, 0));
  }
}

// Leg 5: consecutive windows laid end to end are the stream, and each target is the next token.
TEST(GatherWindows, ConsecutiveWindowsReadTheStreamOnce) {
  std::vector<std::int32_t> stream(101);
  for (std::size_t i = 0; i < stream.size(); ++i) stream[i] = static_cast<std::int32_t>(3 * i);
  for (const Device& device : test::devices()) {
    std::vector<std::int32_t> tokens, targets;
    for (std::int64_t position = 0; position < 100; position += 10) {
      const auto w = gather(device, stream, {position}, 10, -1);
      tokens.insert(tokens.end(), w.token.begin(), w.token.end());
      targets.insert(targets.end(), w.target.begin(), w.target.end());
    }
    EXPECT_EQ(tokens, std::vector<std::int32_t>(stream.begin(), stream.end() - 1));
    EXPECT_EQ(targets, std::vector<std::int32_t>(stream.begin() + 1, stream.end()));
  }
}

TEST(GatherWindows, TargetAndResetMayBeAbsent) {
  for (const Device& device : test::devices()) {
    Buffer<std::int32_t> stream(device, std::vector<std::int32_t>{4, 5, 6}), token(device, 2);
    Buffer<std::int64_t> position(device, std::vector<std::int64_t>{1});
    run(device,
        GatherWindows{
            .stream = stream.view(3), .position = position.view(1), .token = token.view(2, 1)});
    EXPECT_EQ(token.read(), (std::vector<std::int32_t>{5, 6}));
  }
}

template <class T>
std::vector<T> gather_rows(const Device& device, const std::vector<T>& values,
                           const std::vector<std::int32_t>& row,
                           const std::array<std::size_t, 3>& extents) {
  const auto [outer, rows, inner] = extents;
  const Buffer<T> from(device, values), to(device, outer * row.size() * inner);
  const Buffer<std::int32_t> index(device, row);
  run(device, GatherRows<T>{.from = from.view(outer, rows, inner),
                            .row = index.view(row.size()),
                            .to = to.view(outer, row.size(), inner)});
  return to.read();
}

template <class T>
void gathered_rows_are_the_oracles() {
  std::mt19937_64 random(43);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  for (const Device& device : test::devices_of<T>()) {
    for (const std::size_t inner : {0, 1, 7, 64, 257, 9001}) {
      const std::array<std::size_t, 3> extents{below(4), below(9), inner};
      std::vector<T> values(extents[0] * extents[1] * extents[2]);
      for (T& value : values) value = T(static_cast<float>(below(128)));
      std::vector<std::int32_t> row(below(12));
      for (auto& r : row)
        r = static_cast<std::int32_t>(below(extents[1] + 2)) - 1;  // both ends too
      const auto want = reference::gather_rows(as_double(values), extents, row);
      const auto got = as_double(gather_rows(device, values, row, extents));
      ASSERT_EQ(got.size(), want.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        const bool missing = std::isnan(want[i]);
        const bool impossible = std::is_integral_v<T> ? got[i] == -1 : std::isnan(got[i]);
        ASSERT_TRUE(missing ? impossible : got[i] == want[i])
            << test::device_name(device) << ", inner " << inner << ": " << i;
      }
    }
  }
}

TEST(GatherRows, AgreesWithTheOracleOnEveryDeviceAndType) {
  gathered_rows_are_the_oracles<float>();
  gathered_rows_are_the_oracles<bf16>();
  gathered_rows_are_the_oracles<double>();
  gathered_rows_are_the_oracles<std::int32_t>();
  gathered_rows_are_the_oracles<std::int64_t>();
}

TEST(GatherRows, KeepsBitsAndReadsNothingOutOfBounds) {  // worked by hand
  for (const Device& device : test::devices()) {
    const float odd = std::bit_cast<float>(0xFF812345U);  // a NaN with a payload
    const auto got = gather_rows<float>(
        device, {1, 2, 3, odd}, {1, 1, 0, 2, std::numeric_limits<std::int32_t>::min()}, {1, 2, 2});
    EXPECT_EQ(got[0], 3.0F);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(got[1]), 0xFF812345U);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(got[3]), 0xFF812345U);
    EXPECT_EQ((std::vector<float>{got[4], got[5]}), (std::vector<float>{1, 2}));
    for (std::size_t i = 6; i < 10; ++i) EXPECT_TRUE(std::isnan(got[i])) << i;
    EXPECT_EQ(gather_rows<std::int64_t>(device, {}, {0}, {1, 0, 1}),
              std::vector<std::int64_t>{-1});  // there is no row at all
  }
}

TEST(GatherRows, RefusesExtentsThatDisagree) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 24);
  const Buffer<std::int32_t> row(cpu, 3);
  const auto op = [&](View<float, 3> to) {
    return GatherRows<float>{.from = x.view(2, 4, 3), .row = row.view(3), .to = to};
  };
  EXPECT_NO_THROW(op(x.view(2, 3, 3)).check());
  EXPECT_THROW(run(cpu, op(x.view(1, 3, 3))), ShapeError);
  EXPECT_THROW(run(cpu, op(x.view(2, 4, 3))), ShapeError);
  EXPECT_THROW(run(cpu, op(x.view(2, 3, 4))), ShapeError);
}

TEST(GatherWindows, RefusesExtentsThatDisagree) {
  const Device cpu = Cpu{};
  Buffer<std::int32_t> tokens(cpu, 6);
  Buffer<std::int64_t> position(cpu, 3);
  const auto op = [&](std::int64_t positions, View<std::int32_t, 2> target,
                      View<std::int32_t, 2> reset, View<std::int32_t, 1> restart = {}) {
    return GatherWindows{.stream = tokens.view(6),
                         .position = position.view(positions),
                         .restart = restart,
                         .token = tokens.view(3, 2),
                         .target = target,
                         .reset = reset};
  };
  EXPECT_NO_THROW(op(2, tokens.view(3, 2), tokens.view(3, 2)).check());
  EXPECT_THROW(run(cpu, op(3, {}, {})), ShapeError);
  EXPECT_THROW(run(cpu, op(2, tokens.view(2, 2), {})), ShapeError);
  EXPECT_THROW(run(cpu, op(2, tokens.view(3, 1), {})), ShapeError);
  EXPECT_THROW(run(cpu, op(2, {}, tokens.view(2, 2))), ShapeError);
  EXPECT_THROW(run(cpu, op(2, {}, tokens.view(3, 1))), ShapeError);
  EXPECT_THROW(run(cpu, op(2, {}, {}, tokens.view(3))), ShapeError);
}

}  // namespace
}  // namespace carousel
