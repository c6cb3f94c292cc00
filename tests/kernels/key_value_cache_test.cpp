#include "kernels/key_value_cache/key_value_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/key_value_cache.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"
#include "tests/support/numbers.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using Numbers = std::vector<double>;

struct Problem {
  std::size_t steps = 1, places = 1, width = 1, columns = 2;
  std::int64_t first_k = 0, first_v = 1;
  std::vector<std::int64_t> position{0};
  std::vector<std::int32_t> length{};  ///< empty: absent
  Numbers x{}, before{};               ///< of k; of v it is negative

  std::size_t batch() const { return position.size(); }
};

struct Solution {
  Numbers k, v;
  std::vector<std::int32_t> used;
  bool operator==(const Solution&) const = default;
};

template <class T>
Solution solve(const Device& device, const Problem& p) {
  const std::size_t B = p.batch(), C = p.places, W = p.width;
  Numbers negative = p.before;
  for (double& value : negative) value = -value;
  const Buffer<T> x(device, test::stored<T>(p.x)), k(device, test::stored<T>(p.before)),
      v(device, test::stored<T>(negative));
  const Buffer<std::int64_t> position(device, p.position);
  const Buffer<std::int32_t> length(device, p.length), used(device, B);
  run(device,
      StoreKeysAndValues<T>{.x = x.view(p.steps, B, p.columns),
                            .first_k = p.first_k,
                            .first_v = p.first_v,
                            .position = position.view(B),
                            .length = p.length.empty() ? View<std::int32_t, 1>{} : length.view(B),
                            .k = k.view(C, B, W),
                            .v = v.view(C, B, W),
                            .used = used.view(B)});
  return {test::as_double(k.read()), test::as_double(v.read()), used.read()};
}

Numbers oracle(const Problem& p, std::int64_t first, double sign, std::vector<std::int32_t>* used) {
  const std::size_t B = p.batch(), C = p.places, W = p.width;
  Numbers result(C * B * W);
  for (std::size_t b = 0; b < B; ++b) {
    const int all = static_cast<int>(p.steps),
              n = p.length.empty() ? all : std::clamp(p.length[b], 0, all);
    for (std::size_t i = 0; i < W; ++i) {
      reference::Ring ring{Numbers(C), p.position[b]};
      for (std::size_t c = 0; c < C; ++c) ring.places[c] = sign * p.before[(c * B + b) * W + i];
      for (std::size_t t = 0; t < static_cast<std::size_t>(n); ++t) {
        ring.store(p.x[(t * B + b) * p.columns + static_cast<std::size_t>(first) + i]);
      }
      for (std::size_t c = 0; c < C; ++c) result[(c * B + b) * W + i] = ring.places[c];
    }
    used->push_back(static_cast<std::int32_t>(
        std::min<std::int64_t>(static_cast<std::int64_t>(C), p.position[b] + n)));
  }
  return result;
}

template <class T>
Problem filled(Problem p) {
  p.x = test::random_numbers<T>(p.steps * p.batch() * p.columns, 1, 3);
  p.before = test::random_numbers<T>(p.places * p.batch() * p.width, 1, 4);
  return p;
}

// Leg 1. (There is no leg 2: nothing has a gradient.)
TEST(KeyValueCache, ARingWorkedByHand) {
  for (const Device& device : test::devices()) {
    const Solution got = solve<float>(device, {.steps = 2,
                                               .places = 3,
                                               .position = {2, 0},
                                               .length = {2, 1},
                                               .x = {1, 10, 2, 20, 3, 30, 4, 40},
                                               .before = {5, 6, 7, 8, 9, 0}});
    EXPECT_EQ(got.k, (Numbers{3, 2, 7, 8, 1, 0}));
    EXPECT_EQ(got.v, (Numbers{30, 20, -7, -8, 10, 0}));
    EXPECT_EQ(got.used, (std::vector<std::int32_t>{3, 1}));
  }
}

// Leg 3.
TEST(KeyValueCache, StoresAsTheOracleDoes) {
  const std::vector<Problem> problems{{.steps = 0, .places = 2, .position = {0, 5}},
                                      {.steps = 1, .places = 1, .position = {0, 7, 3}},
                                      {.steps = 1,
                                       .places = 5,
                                       .width = 3,
                                       .columns = 9,
                                       .first_k = 3,
                                       .first_v = 6,
                                       .position = {4, 5, 6}},
                                      {.steps = 7,
                                       .places = 3,
                                       .width = 2,
                                       .columns = 5,
                                       .first_k = 0,
                                       .first_v = 3,
                                       .position = {0, 1, 2}},
                                      {.steps = 6,
                                       .places = 4,
                                       .width = 3,
                                       .columns = 7,
                                       .first_k = 1,
                                       .first_v = 4,
                                       .position = {0, 9, (std::int64_t{1} << 40) + 1, 2, 3},
                                       .length = {6, 2, 5, 0, -4}},
                                      {.steps = 40,
                                       .places = 64,
                                       .width = 33,
                                       .columns = 99,
                                       .first_k = 33,
                                       .first_v = 66,
                                       .position = {0, 40, 63},
                                       .length = {40, 99, 1}}};
  test::on_all_devices_and_types([&]<class T>(const Device& device, std::type_identity<T>) {
    for (const Problem& shape : problems) {
      const Problem p = filled<T>(shape);
      const Solution got = solve<T>(device, p);
      std::vector<std::int32_t> used, again;
      EXPECT_EQ(got.k, oracle(p, p.first_k, 1, &used)) << p.steps;
      EXPECT_EQ(got.v, oracle(p, p.first_v, -1, &again)) << p.steps;
      EXPECT_EQ(got.used, used);
    }
  });
}

// Leg 4: the contract on bad input.
TEST(KeyValueCache, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 100);
  const Buffer<std::int64_t> positions(Cpu{}, 3);
  const Buffer<std::int32_t> counts(Cpu{}, 3);
  float* const data = numbers.view(100).data;
  const StoreKeysAndValues<float> good{.x = {data, {2, 3, 6}},
                                       .first_k = 2,
                                       .first_v = 4,
                                       .position = positions.view(3),
                                       .length = counts.view(3),
                                       .k = {data, {4, 3, 2}},
                                       .v = {data, {4, 3, 2}},
                                       .used = counts.view(3)};
  EXPECT_NO_THROW(good.check());
  const auto refuses = [&](const auto& spoil) {
    auto bad = good;
    spoil(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refuses([](auto& op) { op.k.extent[0] = op.v.extent[0] = 0; });
  refuses([](auto& op) { op.k.extent[1] = 2; });
  refuses([](auto& op) { op.k.extent[2] = 3; });
  for (const std::size_t axis : {0U, 1U, 2U}) refuses([axis](auto& op) { ++op.v.extent[axis]; });
  refuses([](auto& op) { op.first_k = -1; });
  refuses([](auto& op) { op.first_k = 5; });
  refuses([](auto& op) { op.first_v = -1; });
  refuses([](auto& op) { op.first_v = 5; });
  refuses([](auto& op) { op.position.extent[0] = 2; });
  refuses([](auto& op) { op.length.extent[0] = 4; });
  refuses([](auto& op) { op.used.extent[0] = 2; });
}

// Leg 5: tokens at once are the tokens one after the other.
TEST(KeyValueCache, ManyStepsAreSingleSteps) {
  for (const Device& device : test::devices()) {
    const Problem all = filled<float>(
        {.steps = 9, .places = 4, .width = 2, .columns = 4, .first_v = 2, .position = {3, 11}});
    Problem one = all;
    one.steps = 1;
    Solution so_far{.k = all.before, .v = {}, .used = {}};
    for (std::size_t t = 0; t < all.steps; ++t) {
      const auto first = all.x.begin() + static_cast<std::ptrdiff_t>(t * 8);
      one.x = Numbers(first, first + 8);
      one.before = so_far.k;
      so_far = solve<float>(device, one);
      for (std::int64_t& position : one.position) ++position;
    }
    EXPECT_EQ(so_far.k, solve<float>(device, all).k);
    EXPECT_EQ(so_far.used, solve<float>(device, all).used);
  }
}

}  // namespace
}  // namespace carousel
