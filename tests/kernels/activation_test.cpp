#include "kernels/activation/activation.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/activation.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using Numbers = std::vector<double>;

template <class T>
struct Solution {
  std::vector<T> y, d_x;
};

/// `before` is what the backward pass adds to; empty: it overwrites.
template <class T>
Solution<T> solve(const Device& device, Activation kind, const Numbers& x, const Numbers& d_y,
                  const Numbers& before = {}) {
  const std::size_t size = x.size();
  const Buffer<T> in(device, test::stored<T>(x)), d(device, test::stored<T>(d_y));
  const Buffer<T> y(device, size),
      d_x = before.empty() ? Buffer<T>(device, size) : Buffer<T>(device, test::stored<T>(before));
  run(device, ActivationForward<T>{.x = in.view(size), .y = y.view(size), .kind = kind});
  run(device, ActivationBackward<T>{.x = in.view(size),
                                    .d_y = d.view(size),
                                    .d_x = {d_x.view(size), !before.empty()},
                                    .kind = kind});
  return {y.read(), d_x.read()};
}

/// Numbers in ±bound, as T stores them.
template <class T>
Numbers random_numbers(std::size_t count, double bound, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> number(-bound, bound);
  Numbers values(count);
  for (double& v : values) v = number(engine);
  return test::as_double(test::stored<T>(values));
}

// Leg 1: from tables of Φ, e and tanh.
TEST(Activation, ValuesAndSlopesOfTables) {
  struct Case {
    Activation kind;
    double x, y, slope;
  };
  const Case cases[] = {{Activation::gelu, 1, 0.84134475, 1.08331547},
                        {Activation::gelu, -2, -0.04550026, -0.08523180},
                        {Activation::gelu_tanh, 1, 0.84119199, 1.08296408},
                        {Activation::relu, 3, 3, 1},
                        {Activation::relu, -3, 0, 0},
                        {Activation::relu, 0, 0, 0},
                        {Activation::silu, 1, 0.73105858, 0.92767051},
                        {Activation::tanh, 0.5, 0.46211716, 0.78644773}};
  for (const Device& device : test::devices()) {
    for (const Case& c : cases) {
      const auto got = solve<float>(device, c.kind, {c.x}, {1});
      EXPECT_NEAR(static_cast<double>(got.y[0]), c.y, 2e-7) << c.x;
      EXPECT_NEAR(static_cast<double>(got.d_x[0]), c.slope, 2e-7) << c.x;
    }
  }
}

// Leg 2.
TEST(Activation, BackwardAgreesWithCentralDifferencesInDouble) {
  constexpr double kStep = 1e-5;
  Numbers x = random_numbers<double>(500, 6, 1);
  for (double& v : x) v = std::abs(v) < 2 * kStep ? 1 : v;  // relu has a kink at 0
  Numbers above = x, below = x;
  for (double& v : above) v += kStep;
  for (double& v : below) v -= kStep;
  const Numbers ones(x.size(), 1);
  for (const auto& [name, kind] : activations()) {
    const auto up = solve<double>(Cpu{}, kind, above, ones).y,
               down = solve<double>(Cpu{}, kind, below, ones).y;
    Numbers want;
    for (std::size_t i = 0; i < x.size(); ++i) want.push_back((up[i] - down[i]) / (2 * kStep));
    EXPECT_TRUE(test::close(solve<double>(Cpu{}, kind, x, ones).d_x, want, {.absolute = 1e-9}))
        << name;
  }
}

// Leg 3. Around a vector and a warp, more than one task of the CPU's, and more than one block.
constexpr std::size_t kSizes[] = {0, 1, 3, 5, 8, 31, 33, 255, 1023, 1025, 70'001};

template <class T>
void sweep(const Tolerance& forward, const Tolerance& backward) {
  double worst_forward = 0, worst_backward = 0;
  for (const auto& [name, kind] : activations()) {
    for (const std::size_t size : kSizes) {
      const Numbers x = random_numbers<T>(size, 12, 11), d_y = random_numbers<T>(size, 1, 12);
      for (const bool accumulate : {false, true}) {
        const Numbers before = accumulate ? random_numbers<T>(size, 1, 13) : Numbers{};
        Numbers y, d_x;
        for (std::size_t i = 0; i < size; ++i) {
          const auto [value, slope] = reference::activated(kind, x[i]);
          y.push_back(value);
          d_x.push_back(slope * d_y[i] + (accumulate ? before[i] : 0));
        }
        for (const Device& device : test::devices()) {
          const auto got = solve<T>(device, kind, x, d_y, before);
          EXPECT_TRUE(test::close(got.y, y, forward)) << name << ", " << size;
          EXPECT_TRUE(test::close(got.d_x, d_x, backward)) << name << ", " << size;
          worst_forward = std::max(worst_forward, test::worst_excess(got.y, y, forward));
          worst_backward = std::max(worst_backward, test::worst_excess(got.d_x, d_x, backward));
        }
      }
    }
  }
  test::expect_recorded(worst_forward, forward);
  test::expect_recorded(worst_backward, backward);
}

TEST(Activation, SweepStaysWithinItsTolerances) {
  sweep<float>(kActivationForwardTolerance.f32, kActivationBackwardTolerance.f32);
  sweep<bf16>(kActivationForwardTolerance.bf16, kActivationBackwardTolerance.bf16);
}

// 1 + erf would have no digit left here.
TEST(Activation, TheTailsOfGeluKeepTheirDigits) {
  for (const Device& device : test::devices()) {
    for (double x = -12; x < -5; x += 0.25) {
      const double want = x * std::erfc(-x / std::sqrt(2.0)) / 2;
      const auto got = solve<float>(device, Activation::gelu, {x}, {1});
      EXPECT_NEAR(static_cast<double>(got.y[0]) / want, 1, 1e-5) << x;
    }
  }
}

// Leg 4: the contract on bad input.
TEST(Activation, RefusesWhatItsContractRefuses) {
  const Buffer<float> x(Cpu{}, 3), other(Cpu{}, 3);
  const auto three = x.view(3), same = other.view(3);
  const View<float, 1> two(other.view(3).data, {2});
  EXPECT_THROW(run(Cpu{}, ActivationForward<float>{.x = three, .y = two}), ShapeError);
  EXPECT_THROW(run(Cpu{}, ActivationBackward<float>{.x = three, .d_y = two, .d_x = {same}}),
               ShapeError);
  EXPECT_THROW(run(Cpu{}, ActivationBackward<float>{.x = three, .d_y = same, .d_x = {two}}),
               ShapeError);
}

TEST(Activation, NaNIsKeptAndInfinitiesAreAsTheContractSays) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const auto& [name, kind] : activations()) {
      SCOPED_TRACE(name);
      const auto got = solve<T>(device, kind, {NAN, INFINITY, -INFINITY, 1}, {1, 1, 1, NAN});
      const Numbers y = test::as_double(got.y), d_x = test::as_double(got.d_x);
      EXPECT_TRUE(std::isnan(y[0]) && std::isnan(d_x[0]) && std::isnan(d_x[3]));
      const bool is_product = kind != Activation::relu && kind != Activation::tanh;
      EXPECT_EQ(y[1], kind == Activation::tanh ? 1 : INFINITY);
      EXPECT_EQ(std::isnan(y[2]), is_product);
      EXPECT_EQ(std::isnan(d_x[1]), is_product);
      EXPECT_EQ(std::isnan(d_x[2]), is_product);
    }
  });
}

// Leg 5: invariants.
TEST(Activation, HalvesAddUp) {
  const Numbers x = random_numbers<float>(1000, 12, 5), ones(x.size(), 1);
  Numbers mirrored = x;
  for (double& v : mirrored) v = -v;
  for (const Device& device : test::devices()) {
    for (const auto& [name, kind] : activations()) {
      const auto right = solve<float>(device, kind, x, ones),
                 left = solve<float>(device, kind, mirrored, ones);
      const bool is_odd = kind == Activation::tanh;
      for (std::size_t i = 0; i < x.size(); ++i) {
        // f(x) − f(−x) = x and f′(x) + f′(−x) = 1 of a gate that is symmetric.
        const double y = static_cast<double>(right.y[i]) + (is_odd ? 1 : -1) * left.y[i];
        const double slopes = static_cast<double>(right.d_x[i]) + (is_odd ? -1 : 1) * left.d_x[i];
        EXPECT_NEAR(y, is_odd ? 0 : x[i], 2e-6) << name;
        EXPECT_NEAR(slopes, is_odd ? 0 : 1, 2e-6) << name;
      }
    }
  }
}

TEST(Activation, WorksInPlaceWithTheSameBitsForEveryNumberOfThreads) {
  const Numbers x = random_numbers<float>(70'001, 4, 6), d_y = random_numbers<float>(70'001, 1, 7);
  const int threads = omp_get_max_threads();
  for (const Device& device : test::devices()) {
    omp_set_num_threads(1);
    const auto want = solve<float>(device, Activation::gelu, x, d_y);
    omp_set_num_threads(3);
    const Buffer<float> in(device, test::stored<float>(x)), d(device, test::stored<float>(d_y));
    const auto values = in.view(x.size()), gradients = d.view(x.size());
    run(device, ActivationBackward<float>{.x = values, .d_y = gradients, .d_x = {gradients}});
    run(device, ActivationForward<float>{.x = values, .y = values});
    omp_set_num_threads(threads);
    EXPECT_EQ(in.read(), want.y);
    EXPECT_EQ(d.read(), want.d_x);
  }
}

}  // namespace
}  // namespace carousel
