#include "kernels/position_embedding/position_embedding.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/position_embedding.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/numbers.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using test::random_numbers;
using Numbers = std::vector<double>;

struct Problem {
  std::size_t steps = 1, batch = 1, width = 1;
  std::size_t positions = 0;  ///< rows of the table; 0: sinusoids
  float scale = 1;
  std::vector<std::int64_t> offset{};  ///< empty: absent
  Numbers x{}, table{}, d_y{};
  Numbers before_x{}, before_table{};  ///< what is added to; empty: it is overwritten

  std::size_t size() const { return steps * batch * width; }
};

struct Solution {
  Numbers y{}, d_x{}, d_table{};
};

template <class T>
Problem filled(Problem p, bool accumulate) {
  const auto seed = static_cast<unsigned>(p.size() + 7 * p.positions);
  p.x = random_numbers<T>(p.size(), 1, seed);
  p.table = random_numbers<T>(p.positions * p.width, 1, seed + 1);
  p.d_y = random_numbers<T>(p.size(), 1, seed + 2);
  if (accumulate) {
    p.before_x = random_numbers<T>(p.size(), 1, seed + 3);
    p.before_table = random_numbers<Accumulator<T>>(p.table.size(), 1, seed + 4);
  }
  return p;
}

template <class T>
Solution solve(const Device& device, const Problem& p) {
  using Acc = Accumulator<T>;
  const std::size_t S = p.steps, B = p.batch, E = p.width;
  const Buffer<T> x(device, test::stored<T>(p.x)), table(device, test::stored<T>(p.table)),
      d_y(device, test::stored<T>(p.d_y)), y(device, p.size()),
      d_x = test::gradient_buffer<T>(device, p.before_x, p.size());
  const Buffer<Acc> d_table =
      test::gradient_buffer<Acc>(device, p.before_table, p.positions * p.width);
  const Buffer<std::int64_t> offset(device, p.offset);
  run(device,
      PositionEmbeddingForward<T>{
          .x = x.view(S, B, E),
          .table = p.positions == 0 ? View<T, 2>{} : table.view(p.positions, E),
          .offset = p.offset.empty() ? View<std::int64_t, 1>{} : offset.view(p.offset.size()),
          .scale = p.scale,
          .y = y.view(S, B, E)});
  Gradient<Acc, 2> to_table{};
  if (p.positions > 0) to_table = {d_table.view(p.positions, E), !p.before_table.empty()};
  run(device, PositionEmbeddingBackward<T>{.d_y = d_y.view(S, B, E),
                                           .scale = p.scale,
                                           .d_x = {d_x.view(S, B, E), !p.before_x.empty()},
                                           .d_table = to_table});
  return {test::as_double(y.read()), test::as_double(d_x.read()), test::as_double(d_table.read())};
}

Solution oracle(const Problem& p) {
  Solution s{.d_x = p.before_x, .d_table = p.before_table};
  s.d_x.resize(p.size());
  s.d_table.resize(p.positions * p.width);
  const auto scale = static_cast<double>(p.scale);
  for (std::size_t row = 0; row < p.steps * p.batch; ++row) {
    const std::size_t t = row / p.batch, b = row % p.batch;
    const auto n = static_cast<long>(t) + (p.offset.empty() ? 0 : p.offset[b]);
    const Numbers added = p.positions == 0 ? reference::sinusoid(static_cast<double>(n), p.width)
                                           : reference::table_row(p.table, n, p.width);
    for (std::size_t e = 0; e < p.width; ++e) {
      const std::size_t at = row * p.width + e;
      s.y.push_back(scale * p.x[at] + added[e]);
      s.d_x[at] += scale * p.d_y[at];
      if (p.positions > 0) s.d_table[t * p.width + e] += p.d_y[at];
    }
  }
  return s;
}

// Leg 1: sin 1 and cos 1; of the second pair of four columns the angle is a hundredth.
TEST(PositionEmbedding, RowsWorkedByHand) {
  constexpr Tolerance kExact{.absolute = 1e-6};
  for (const Device& device : test::devices()) {
    const Solution waves = solve<float>(device, {.steps = 2,
                                                 .width = 4,
                                                 .scale = 2,
                                                 .x = {1, 1, 1, 1, 0, 0, 0, 0},
                                                 .d_y = {1, 2, 3, 4, 5, 6, 7, 8}});
    EXPECT_TRUE(test::close(
        waves.y, Numbers{2, 3, 2, 3, 0.84147098, 0.54030231, std::sin(0.01), std::cos(0.01)},
        kExact));
    EXPECT_EQ(waves.d_x, (Numbers{2, 4, 6, 8, 10, 12, 14, 16}));
    const Solution learnt = solve<float>(device, {.steps = 1,
                                                  .batch = 2,
                                                  .width = 2,
                                                  .positions = 3,
                                                  .x = {1, 2, 3, 4},
                                                  .table = {10, 20, 30, 40, 50, 60},
                                                  .d_y = {1, 2, 4, 8}});
    EXPECT_EQ(learnt.y, (Numbers{11, 22, 13, 24}));
    EXPECT_EQ(learnt.d_table, (Numbers{5, 10, 0, 0, 0, 0}));
  }
}

// Leg 2: of the loss Σ d_y ∘ y, in both inputs.
TEST(PositionEmbedding, BackwardAgreesWithCentralDifferencesInDouble) {
  const Problem p =
      filled<double>({.steps = 3, .batch = 2, .width = 5, .positions = 4, .scale = 1.5F}, false);
  const Solution got = solve<double>(Cpu{}, p);
  const auto expect = [&](Numbers Problem::*input, const Numbers& gradient) {
    const Numbers want = test::central_differences(p.*input, [&](const Numbers& moved) {
      Problem at = p;
      at.*input = moved;
      return test::dot(solve<double>(Cpu{}, at).y, p.d_y);
    });
    EXPECT_TRUE(test::close(gradient, want, {.absolute = 1e-9}));
  };
  expect(&Problem::x, got.d_x);
  expect(&Problem::table, got.d_table);
}

// Leg 3.
const std::vector<Problem> kProblems{
    {.steps = 0, .batch = 2, .width = 3, .positions = 2},
    {.steps = 3, .batch = 0, .width = 3, .positions = 4},
    {.steps = 2, .batch = 3, .width = 1},
    {.steps = 4, .batch = 3, .width = 7, .positions = 4, .scale = 0.5F},
    {.steps = 5, .batch = 2, .width = 8, .positions = 9},
    {.steps = 2, .batch = 3, .width = 6, .positions = 9, .offset = {0, 7, 8}},
    {.steps = 2, .batch = 3, .width = 9, .positions = 4, .offset = {-1, 3, 1}},
    {.steps = 2, .batch = 2, .width = 33, .offset = {90'000, 16'777'214}},
    {.steps = 33, .batch = 40, .width = 31, .positions = 50},
    {.steps = 64, .batch = 12, .width = 128, .scale = 11.3137F},
    {.steps = 64, .batch = 12, .width = 128, .positions = 64}};

template <class T>
void sweep(const Tolerances& tolerances) {
  double worst = 0;
  const Tolerance &rounded = test::of<T>(tolerances), &summed = tolerances.f32;
  for (const Problem& shape : kProblems) {
    for (const bool accumulate : {false, true}) {
      const Problem p = filled<T>(shape, accumulate);
      const Solution want = oracle(p);
      for (const Device& device : test::devices()) {
        SCOPED_TRACE(test::device_name(device) + ", width " + std::to_string(p.width));
        const Solution got = solve<T>(device, p);
        EXPECT_TRUE(test::close(got.y, want.y, rounded));
        EXPECT_TRUE(test::close(got.d_x, want.d_x, rounded));
        EXPECT_TRUE(test::close(got.d_table, want.d_table, summed));
        worst = std::max({worst, test::worst_excess(got.y, want.y, rounded),
                          test::worst_excess(got.d_x, want.d_x, rounded),
                          test::worst_excess(got.d_table, want.d_table, summed)});
      }
    }
  }
  test::expect_recorded(worst, rounded);
}

TEST(PositionEmbedding, SweepStaysWithinItsTolerance) {
  sweep<float>(kPositionEmbeddingTolerance);
  sweep<bf16>(kPositionEmbeddingTolerance);
}

// Leg 4: the contract on bad input. (The table's missing rows are among the sweep's problems.)
TEST(PositionEmbedding, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 100);
  const Buffer<std::int64_t> offsets(Cpu{}, 3);
  float* const data = numbers.view(100).data;
  const PositionEmbeddingForward<float> forward{.x = {data, {4, 3, 5}},
                                                .table = {data, {2, 5}},
                                                .offset = offsets.view(3),
                                                .y = {data, {4, 3, 5}}};
  const PositionEmbeddingBackward<float> backward{
      .d_y = {data, {4, 3, 5}}, .d_x = {{data, {4, 3, 5}}}, .d_table = {{data, {4, 5}}}};
  EXPECT_NO_THROW(forward.check());
  EXPECT_NO_THROW(backward.check());
  for (const std::size_t axis : {0U, 1U, 2U}) {
    auto spoiled = forward;
    ++spoiled.y.extent[axis];
    EXPECT_THROW(spoiled.check(), ShapeError);
    auto back = backward;
    ++back.d_x.view.extent[axis];
    EXPECT_THROW(back.check(), ShapeError);
  }
  auto spoiled = forward;
  spoiled.table.extent = {2, 4};
  EXPECT_THROW(spoiled.check(), ShapeError);
  spoiled = forward;
  spoiled.offset.extent = {2};
  EXPECT_THROW(spoiled.check(), ShapeError);
  for (const auto& extent : {std::array<std::int64_t, 2>{3, 5}, {4, 6}}) {
    auto back = backward;
    back.d_table.view.extent = extent;
    EXPECT_THROW(back.check(), ShapeError);
  }
}

// Leg 5: invariants.
TEST(PositionEmbedding, AnOffsetIsAWindowFurtherOn) {
  for (const Device& device : test::devices()) {
    for (const std::size_t positions : {0U, 40U}) {
      const Problem whole =
          filled<float>({.steps = 20, .batch = 2, .width = 12, .positions = positions}, false);
      Problem later = whole;
      later.steps = 8;
      later.offset = {12, 12};
      const std::size_t skipped = 12UL * whole.batch * whole.width;
      later.x.erase(later.x.begin(), later.x.begin() + static_cast<std::ptrdiff_t>(skipped));
      later.d_y.resize(later.size());
      const Numbers all = solve<float>(device, whole).y, rest = solve<float>(device, later).y;
      EXPECT_EQ(rest, Numbers(all.begin() + static_cast<std::ptrdiff_t>(skipped), all.end()));
    }
  }
}

TEST(PositionEmbedding, GivesTheSameBitsForEveryNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const Problem& shape : {kProblems[8], kProblems[9]}) {
    const Problem p = filled<float>(shape, true);
    omp_set_num_threads(1);
    const Solution want = solve<float>(Cpu{}, p);
    omp_set_num_threads(3);
    const Solution got = solve<float>(Cpu{}, p);
    omp_set_num_threads(threads);
    EXPECT_EQ(got.y, want.y);
    EXPECT_EQ(got.d_x, want.d_x);
    EXPECT_EQ(got.d_table, want.d_table);
  }
}

TEST(AdvancePositions, MovesEachRowByWhatItHasRead) {
  for (const Device& device : test::devices()) {
    const Buffer<std::int64_t> position(device, std::vector<std::int64_t>{5, 0, 1L << 40, 7, 7});
    const Buffer<std::int32_t> length(device, std::vector<std::int32_t>{3, 0, 1, 9, -2});
    AdvancePositions op{.before = position.view(5),
                        .length = length.view(5),
                        .steps = 4,
                        .after = position.view(5)};
    run(device, op);
    EXPECT_EQ(position.read(), (std::vector<std::int64_t>{8, 0, (1L << 40) + 1, 11, 7}));
    op.length = {};
    run(device, op);
    EXPECT_EQ(position.read(), (std::vector<std::int64_t>{12, 4, (1L << 40) + 5, 15, 11}));
    op.steps = -1;
    EXPECT_THROW(op.check(), ShapeError);
    op.steps = 1;
    op.length = length.view(5);
    op.length.extent = {4};
    EXPECT_THROW(op.check(), ShapeError);
    op.length = {};
    op.after.extent = {4};
    EXPECT_THROW(op.check(), ShapeError);
  }
}

}  // namespace
}  // namespace carousel
