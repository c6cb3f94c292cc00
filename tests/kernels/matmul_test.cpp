#include "kernels/matmul/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/matmul.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/products.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;
using test::stored;

struct Case {
  std::size_t m, n, k;
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false, tf32 = false;

  /// The case with its four switches as the bits of `number` say.
  Case with(int number) const {
    Case c = *this;
    c.transpose_a = (number & 1) != 0;
    c.transpose_b = (number & 2) != 0;
    c.accumulate = (number & 4) != 0;
    c.bias = (number & 8) != 0;
    return c;
  }
  std::string text() const {
    return fmt::format("{}x{}x{}{}{}{}{}{}", m, n, k, transpose_a ? " Aᵀ" : "",
                       transpose_b ? " Bᵀ" : "", accumulate ? " accumulate" : "",
                       bias ? " bias" : "", tf32 ? " tf32" : "");
  }
};

template <class T, class Out>
struct Problem {
  Case shape;
  std::vector<T> a, b;
  std::vector<Accumulator<T>> bias;
  std::vector<Out> before;  // what c holds; only an accumulating product reads it
};

std::vector<double> numbers(std::size_t count, std::mt19937& engine) {
  std::uniform_real_distribution<double> number(-1, 1);
  std::vector<double> values(count);
  for (double& v : values) v = number(engine);
  return values;
}

template <class T, class Out = T>
Problem<T, Out> random_problem(const Case& c, unsigned seed) {
  std::mt19937 engine(seed);
  return {c, stored<T>(numbers(c.m * c.k, engine)), stored<T>(numbers(c.k * c.n, engine)),
          stored<Accumulator<T>>(numbers(c.n, engine)), stored<Out>(numbers(c.m * c.n, engine))};
}

template <class T, class Out>
std::vector<Out> solve(const Device& device, const Problem<T, Out>& p) {
  const Case& s = p.shape;
  const Buffer<T> a(device, p.a), b(device, p.b);
  const Buffer<Accumulator<T>> bias(device, p.bias);
  const Buffer<Out> c =
      s.accumulate ? Buffer<Out>(device, p.before) : Buffer<Out>(device, s.m * s.n);
  const Matmul<T, Out> op{.a = s.transpose_a ? a.view(s.k, s.m) : a.view(s.m, s.k),
                          .b = s.transpose_b ? b.view(s.n, s.k) : b.view(s.k, s.n),
                          .bias = s.bias ? View<const Accumulator<T>, 1>(bias.view(s.n))
                                         : View<const Accumulator<T>, 1>{},
                          .c = c.view(s.m, s.n),
                          .transpose_a = s.transpose_a,
                          .transpose_b = s.transpose_b,
                          .accumulate = s.accumulate,
                          .tf32 = s.tf32};
  run(device, op);
  return c.read();
}

template <class T, class Out>
std::vector<double> expected(const Problem<T, Out>& p) {
  const Case& s = p.shape;
  const reference::Matrix a{s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, as_double(p.a),
                            s.transpose_a};
  const reference::Matrix b{s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, as_double(p.b),
                            s.transpose_b};
  return reference::matmul(a, b, s.bias ? as_double(p.bias) : std::vector<double>{},
                           s.accumulate ? as_double(p.before) : std::vector<double>{});
}

TEST(Matmul, AProductWorkedByHand) {
  for (const Device& device : test::devices()) {
    // [1 2 3; 4 5 6] · [1 0; 0 1; 2 −1] + [10, 20] = [7 −1; 16 −1] + [10, 20]
    Problem<float, float> p{.shape = {.m = 2, .n = 2, .k = 3, .bias = true},
                            .a = {1, 2, 3, 4, 5, 6},
                            .b = {1, 0, 0, 1, 2, -1},
                            .bias = {10, 20},
                            .before = {100, 200, 300, 400}};
    EXPECT_EQ(solve(device, p), (std::vector<float>{17, 19, 26, 19}));
    p.shape.accumulate = true;
    EXPECT_EQ(solve(device, p), (std::vector<float>{117, 219, 326, 419}));
    // The same matrices, stored as their transposes.
    p.shape.transpose_a = p.shape.transpose_b = true;
    p.a = {1, 4, 2, 5, 3, 6};
    p.b = {1, 0, 2, 0, 1, -1};
    EXPECT_EQ(solve(device, p), (std::vector<float>{117, 219, 326, 419}));
  }
}

// None, one, around a vector and a tile, each empty extent, and one layer of a language model.
const std::vector<Case> kShapes{{0, 3, 2},   {3, 0, 2},    {3, 5, 0},   {1, 1, 1},    {1, 33, 7},
                                {5, 31, 32}, {33, 32, 31}, {64, 65, 8}, {20, 260, 65}};

// Large enough for tf32 to pay, exactly and not.
const std::vector<Case> kTf32Shapes{{16, 512, 512}, {17, 515, 601}};

template <class T, class Out>
void matches_oracle(const Tolerance& tolerance, const std::vector<Case>& shapes = kShapes,
                    bool tf32 = false) {
  for (const Device& device : test::devices()) {
    for (const Case& shape : shapes) {
      for (int switches = 0; switches < 16; ++switches) {
        Case c = shape.with(switches);
        c.tf32 = tf32;
        const auto p = random_problem<T, Out>(c, 21);
        EXPECT_TRUE(test::close(solve(device, p), expected(p), tolerance))
            << test::device_name(device) << ' ' << c.text();
      }
    }
  }
}

TEST(Matmul, FloatMatchesTheOracle) { matches_oracle<float, float>(kMatmulTolerance.f32); }
TEST(Matmul, Bf16MatchesTheOracle) { matches_oracle<bf16, bf16>(kMatmulTolerance.bf16); }
TEST(Matmul, Bf16IntoFloatIsAsGoodAsFloat) { matches_oracle<bf16, float>(kMatmulTolerance.f32); }
TEST(Matmul, Tf32MatchesTheOracle) {
  matches_oracle<float, float>(kMatmulTf32Tolerance, kShapes, true);
  matches_oracle<float, float>(kMatmulTf32Tolerance, kTf32Shapes, true);
}

TEST(Matmul, Tf32IsToldWhereItRan) {
  for (const Device& device : test::devices()) {
    for (const Case& shape : {kShapes[7], kTf32Shapes[0]}) {
      auto p = random_problem<float>(shape, 26);
      const std::vector<float> exact = solve(device, p);
      p.shape.tf32 = true;
      std::vector<float> rough;
      const bool rounds = test::ran_in_tf32([&] { rough = solve(device, p); });
      EXPECT_EQ(rough != exact, rounds) << test::device_name(device) << ' ' << shape.text();
      // A GPU's library decides for itself.
      if (!test::has_gpu()) {
        EXPECT_EQ(rounds, !is_cpu(device) && shape.k >= 512);
      }
    }
  }
}

TEST(Matmul, ABiasMayBeginAnywhereAndBeLong) {
  for (const Device& device : test::devices()) {
    for (const std::size_t n : {8UL, 40'000UL}) {
      const std::vector<float> one{1};
      const Buffer<float> a(device, one), b(device, std::vector<float>(n, 2));
      for (const bool accumulate : {false, true}) {
        const Buffer<bf16> short_a(device, stored<bf16>({1})),
            short_b(device, stored<bf16>(std::vector<double>(n, 2)));
        for (const std::size_t offset : {0UL, 1UL, 2UL}) {
          const Buffer<float> bias(device, std::vector<float>(n + offset, 3)),
              c(device, std::vector<float>(n, 0.5F));
          const Buffer<bf16> short_c(device, stored<bf16>(std::vector<double>(n, 0.5)));
          View<const float, 1> from = bias.view(n + offset);
          from.data += offset;
          from.extent[0] = static_cast<std::int64_t>(n);
          run(device, Matmul<float>{.a = a.view(1, 1),
                                    .b = b.view(1, n),
                                    .bias = from,
                                    .c = c.view(1, n),
                                    .accumulate = accumulate});
          run(device, Matmul<bf16>{.a = short_a.view(1, 1),
                                   .b = short_b.view(1, n),
                                   .bias = from,
                                   .c = short_c.view(1, n),
                                   .accumulate = accumulate});
          const std::vector<double> want(n, accumulate ? 5.5 : 5);
          EXPECT_EQ(as_double(c.read()), want) << n << " at " << offset;
          EXPECT_EQ(as_double(short_c.read()), want) << n << " at " << offset;
        }
      }
    }
  }
}

TEST(Matmul, DoubleMatchesTheOracleOnTheCpu) {
  for (const Case& shape : kShapes) {
    for (int switches = 0; switches < 16; ++switches) {
      const auto p = random_problem<double>(shape.with(switches), 22);
      EXPECT_TRUE(
          test::close(solve(Device(Cpu{}), p), expected(p), {.absolute = 1e-13, .relative = 1e-13}))
          << p.shape.text();
    }
  }
}

/// The largest excess that seeded problems of K up to 1,024 show on any device. Those for tf32 are
/// large enough for it.
template <class T, class Out>
double sweep(const Tolerance& tolerance, bool tf32 = false) {
  double worst = 0;
  std::mt19937 engine(23);
  std::uniform_int_distribution<std::size_t> side(1, 40), inner(tf32 ? 512 : 1, 1024);
  for (int i = 0; i < (tf32 ? 8 : 24); ++i) {
    Case c = Case{side(engine), side(engine), inner(engine)}.with(i);
    if (tf32) c.m += 15, c.n += 511;
    c.tf32 = tf32;
    const auto p = random_problem<T, Out>(c, 100U + static_cast<unsigned>(i));
    const std::vector<double> want = expected(p);
    for (const Device& device : test::devices()) {
      worst = std::max(worst, test::worst_excess(solve(device, p), want, tolerance));
    }
  }
  return worst;
}

TEST(Matmul, TheRecordedWorstErrorsHold) {
  const auto& [f32, mixed] = kMatmulTolerance;
  test::expect_recorded(std::max(sweep<float, float>(f32), sweep<bf16, float>(f32)), f32);
  test::expect_recorded(sweep<bf16, bf16>(mixed), mixed);
}

TEST(Matmul, TheRecordedWorstErrorOfTf32Holds) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  test::expect_recorded(sweep<float, float>(kMatmulTf32Tolerance, true), kMatmulTf32Tolerance);
}

TEST(Matmul, BadShapesAreNamed) {
  const Device cpu = Cpu{};
  const Buffer<float> x(cpu, 64);
  const auto message = [&](const Matmul<float>& op) -> std::string {
    try {
      run(cpu, op);
    } catch (const ShapeError& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(message({.a = x.view(3, 4), .b = x.view(4, 5), .c = x.view(2, 5)}),
            "matmul: rows of a is 3, expected 2");
  EXPECT_EQ(message({.a = x.view(2, 4), .b = x.view(4, 5), .c = x.view(2, 6)}),
            "matmul: columns of b is 5, expected 6");
  EXPECT_EQ(message({.a = x.view(2, 4), .b = x.view(3, 5), .c = x.view(2, 5)}),
            "matmul: inner extent of b is 3, expected 4");
  EXPECT_EQ(message({.a = x.view(2, 4), .b = x.view(4, 5), .bias = x.view(4), .c = x.view(2, 5)}),
            "matmul: length of bias is 4, expected 5");
  // Extents that fit only if a transpose is forgotten.
  EXPECT_EQ(message({.a = x.view(2, 4), .b = x.view(4, 5), .c = x.view(2, 5), .transpose_a = true}),
            "matmul: rows of a is 4, expected 2");
}

template <class T>
void identity_changes_nothing() {
  constexpr std::size_t kSize = 37;
  for (const Device& device : test::devices()) {
    auto p = random_problem<T>({.m = 11, .n = kSize, .k = kSize}, 24);
    for (std::size_t i = 0; i < p.b.size(); ++i) p.b[i] = T(i % (kSize + 1) == 0 ? 1.0F : 0.0F);
    EXPECT_EQ(as_double(solve(device, p)), as_double(p.a)) << test::device_name(device);
  }
}

TEST(Matmul, TheIdentityChangesNothing) {
  identity_changes_nothing<float>();
  identity_changes_nothing<bf16>();
}

TEST(Matmul, NaNSpreadsOverItsRowAlone) {
  for (const Device& device : test::devices()) {
    auto p = random_problem<float>({.m = 3, .n = 40, .k = 5}, 25);
    p.a[5] = NAN;  // row 1
    const std::vector<float> c = solve(device, p);
    for (std::size_t i = 0; i < c.size(); ++i) EXPECT_EQ(std::isnan(c[i]), i / 40 == 1);
  }
}

}  // namespace
}  // namespace carousel
