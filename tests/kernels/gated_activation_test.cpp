#include "kernels/gated_activation/gated_activation.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/gated_activation.h"
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
  std::size_t rows = 0, columns = 0;
  Activation kind = Activation::silu;
  Numbers x{}, d_y{};
  Numbers before{};  ///< what d_x is added to; empty: it is overwritten
};

struct Solution {
  Numbers y{}, d_x{};
};

template <class T>
Problem random_problem(std::size_t rows, std::size_t columns, Activation kind, bool accumulate) {
  const auto seed = static_cast<unsigned>(1 + rows * 31 + columns);
  const std::size_t size = rows * columns;
  return {.rows = rows,
          .columns = columns,
          .kind = kind,
          .x = random_numbers<T>(2 * size, 6, seed),
          .d_y = random_numbers<T>(size, 1, seed + 1),
          .before = accumulate ? random_numbers<T>(2 * size, 1, seed + 2) : Numbers{}};
}

template <class T>
Solution solve(const Device& device, const Problem& p) {
  const std::size_t N = p.rows, C = p.columns;
  const Buffer<T> x(device, test::stored<T>(p.x)), d_y(device, test::stored<T>(p.d_y)),
      y(device, N * C), d_x = test::gradient_buffer<T>(device, p.before, 2 * N * C);
  run(device, GatedActivationForward<T>{.x = x.view(N, 2 * C), .y = y.view(N, C), .kind = p.kind});
  run(device, GatedActivationBackward<T>{.x = x.view(N, 2 * C),
                                         .d_y = d_y.view(N, C),
                                         .d_x = {d_x.view(N, 2 * C), !p.before.empty()},
                                         .kind = p.kind});
  return {test::as_double(y.read()), test::as_double(d_x.read())};
}

Solution oracle(const Problem& p) {
  Solution s;
  for (std::size_t n = 0; n < p.rows; ++n) {
    const auto part = [n](const Numbers& all, std::size_t width) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(n * width);
      return Numbers(first, first + static_cast<std::ptrdiff_t>(width));
    };
    const Numbers row = part(p.x, 2 * p.columns);
    const Numbers y = reference::gated_activation(p.kind, row);
    const Numbers d = reference::gated_activation_backward(p.kind, row, part(p.d_y, p.columns));
    s.y.insert(s.y.end(), y.begin(), y.end());
    s.d_x.insert(s.d_x.end(), d.begin(), d.end());
  }
  for (std::size_t i = 0; i < p.before.size(); ++i) s.d_x[i] += p.before[i];
  return s;
}

// Leg 1: silu(1) = 0.73105858 and its slope 0.92767051, from a table of e; relu has none below 0.
TEST(GatedActivation, ARowWorkedByHand) {
  for (const Device& device : test::devices()) {
    const Solution swiglu =
        solve<float>(device, {.rows = 1, .columns = 2, .x = {1, 0, 3, 5}, .d_y = {2, 4}});
    constexpr Tolerance kExact{.absolute = 1e-6};
    EXPECT_TRUE(test::close(swiglu.y, Numbers{3 * 0.73105858, 0}, kExact));
    EXPECT_TRUE(test::close(swiglu.d_x, Numbers{2 * 3 * 0.92767051, 4 * 5 * 0.5, 2 * 0.73105858, 0},
                            kExact));
    const Solution reglu = solve<float>(device, {.rows = 2,
                                                 .columns = 1,
                                                 .kind = Activation::relu,
                                                 .x = {2, 3, -2, 3},
                                                 .d_y = {1, 1},
                                                 .before = {1, 1, 1, 1}});
    EXPECT_EQ(reglu.y, (Numbers{6, 0}));
    EXPECT_EQ(reglu.d_x, (Numbers{4, 3, 1, 1}));
  }
}

// Leg 2.
TEST(GatedActivation, BackwardAgreesWithCentralDifferencesInDouble) {
  for (const auto& [name, kind] : activations()) {
    Problem p = random_problem<double>(3, 7, kind, false);
    for (double& v : p.x) v = std::abs(v) < 1e-3 ? 1 : v;  // relu has a kink at 0
    const Numbers want = test::central_differences(p.x, [&](const Numbers& x) {
      Problem moved = p;
      moved.x = x;
      return test::dot(solve<double>(Cpu{}, moved).y, p.d_y);
    });
    EXPECT_TRUE(test::close(solve<double>(Cpu{}, p).d_x, want, {.absolute = 1e-8})) << name;
  }
}

// Leg 3. Columns around a vector, rows and columns of more than one block and task, a hidden layer.
struct Size {
  std::size_t rows, columns;
};
constexpr Size kSizes[] = {{0, 3}, {3, 0}, {1, 1},   {5, 3},   {2, 4},
                           {3, 8}, {7, 9}, {33, 31}, {70, 33}, {64, 768}};

template <class T>
void sweep(const Tolerance& forward, const Tolerance& backward) {
  double worst_forward = 0, worst_backward = 0;
  for (const auto& [name, kind] : activations()) {
    for (const auto& [rows, columns] : kSizes) {
      for (const bool accumulate : {false, true}) {
        const Problem p = random_problem<T>(rows, columns, kind, accumulate);
        const Solution want = oracle(p);
        for (const Device& device : test::devices()) {
          const Solution got = solve<T>(device, p);
          EXPECT_TRUE(test::close(got.y, want.y, forward))
              << name << ", " << rows << 'x' << columns;
          EXPECT_TRUE(test::close(got.d_x, want.d_x, backward))
              << name << ", " << rows << 'x' << columns;
          worst_forward = std::max(worst_forward, test::worst_excess(got.y, want.y, forward));
          worst_backward =
              std::max(worst_backward, test::worst_excess(got.d_x, want.d_x, backward));
        }
      }
    }
  }
  test::expect_recorded(worst_forward, forward);
  test::expect_recorded(worst_backward, backward);
}

TEST(GatedActivation, SweepStaysWithinItsTolerances) {
  sweep<float>(kGatedActivationForwardTolerance.f32, kGatedActivationBackwardTolerance.f32);
  sweep<bf16>(kGatedActivationForwardTolerance.bf16, kGatedActivationBackwardTolerance.bf16);
}

// Leg 4: the contract on bad input.
TEST(GatedActivation, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 60);
  float* const data = numbers.view(60).data;
  const auto view = [data](std::int64_t rows, std::int64_t columns) {
    return View<float, 2>(data, {rows, columns});
  };
  EXPECT_NO_THROW((GatedActivationForward<float>{.x = view(3, 8), .y = view(3, 4)}.check()));
  EXPECT_THROW((GatedActivationForward<float>{.x = view(3, 8), .y = view(2, 4)}.check()),
               ShapeError);
  EXPECT_THROW((GatedActivationForward<float>{.x = view(3, 9), .y = view(3, 4)}.check()),
               ShapeError);
  const auto backward = [&](const View<float, 2>& d_y, const View<float, 2>& d_x) {
    GatedActivationBackward<float>{.x = view(3, 8), .d_y = d_y, .d_x = {d_x}}.check();
  };
  EXPECT_NO_THROW(backward(view(3, 4), view(3, 8)));
  EXPECT_THROW(backward(view(2, 4), view(3, 8)), ShapeError);
  EXPECT_THROW(backward(view(3, 5), view(3, 8)), ShapeError);
  EXPECT_THROW(backward(view(3, 4), view(2, 8)), ShapeError);
  EXPECT_THROW(backward(view(3, 4), view(3, 4)), ShapeError);
}

TEST(GatedActivation, ANaNReachesItsOwnPlaceAlone) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const std::size_t place : {1U, 4U}) {  // of the gate, and of what it gates
      Problem p{.rows = 1, .columns = 3, .x = {1, 2, 3, 4, 5, 6}, .d_y = {1, 1, 1}};
      p.x[place] = NAN;
      const Solution got = solve<T>(device, p);
      for (std::size_t c = 0; c < 3; ++c) EXPECT_EQ(std::isnan(got.y[c]), c == 1);
      EXPECT_TRUE(std::isnan(got.d_x[1]));
      EXPECT_EQ(std::isnan(got.d_x[4]), place == 1);
      EXPECT_FALSE(std::isnan(got.d_x[0]) || std::isnan(got.d_x[3]));
    }
  });
}

// Leg 5: it is the product of an activation and the second half.
TEST(GatedActivation, IsAnActivationTimesTheSecondHalf) {
  const Problem p = random_problem<float>(9, 65, Activation::gelu, false);
  for (const Device& device : test::devices()) {
    Numbers gates, gated;
    for (std::size_t i = 0; i < p.x.size(); ++i) {
      (i / p.columns % 2 == 0 ? gates : gated).push_back(p.x[i]);
    }
    const Buffer<float> in(device, test::stored<float>(gates)), out(device, gates.size());
    run(device, ActivationForward<float>{
                    .x = in.view(gates.size()), .y = out.view(gates.size()), .kind = p.kind});
    std::vector<float> want = out.read();
    for (std::size_t i = 0; i < want.size(); ++i) want[i] *= static_cast<float>(gated[i]);
    EXPECT_EQ(solve<float>(device, p).y, test::as_double(want));
  }
}

TEST(GatedActivation, WorksInPlaceWithTheSameBitsForEveryNumberOfThreads) {
  const Problem p = random_problem<float>(90, 501, Activation::silu, false);
  const int threads = omp_get_max_threads();
  for (const Device& device : test::devices()) {
    omp_set_num_threads(1);
    const Solution want = solve<float>(device, p);
    omp_set_num_threads(3);
    EXPECT_EQ(solve<float>(device, p).y, want.y);
    const Buffer<float> x(device, test::stored<float>(p.x)), d(device, test::stored<float>(p.d_y));
    run(device, GatedActivationBackward<float>{
                    .x = x.view(90, 1002), .d_y = d.view(90, 501), .d_x = {x.view(90, 1002)}});
    omp_set_num_threads(threads);
    EXPECT_EQ(test::as_double(x.read()), want.d_x);
  }
}

}  // namespace
}  // namespace carousel
