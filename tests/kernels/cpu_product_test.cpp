#include "kernels/common/cpu_product.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <random>
#include <vector>

#include "kernels/common/memory.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"

namespace carousel {
namespace {

struct Case {
  std::int64_t m, n, k;
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false;
};

template <class T, class Out>
struct Problem {
  std::vector<T> a, b;
  std::vector<Accumulator<T>> bias;
  std::vector<Out> c;
};

template <class T, class Out>
Problem<T, Out> random_problem(const Case& x, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> number(-1, 1);
  const auto draw = [&]<class V>(std::vector<V>& to, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) to.push_back(static_cast<V>(number(engine)));
  };
  Problem<T, Out> p;
  draw(p.a, x.m * x.k);
  draw(p.b, x.k * x.n);
  draw(p.bias, x.n);
  draw(p.c, x.m * x.n);
  return p;
}

template <class T, class Out>
std::vector<double> expected(const Case& x, const Problem<T, Out>& p) {
  const auto at = [](const auto& v, std::int64_t i) {
    return static_cast<double>(v[static_cast<std::size_t>(i)]);
  };
  std::vector<double> c;
  for (std::int64_t i = 0; i < x.m; ++i) {
    for (std::int64_t j = 0; j < x.n; ++j) {
      double sum = (x.accumulate ? at(p.c, i * x.n + j) : 0) + (x.bias ? at(p.bias, j) : 0);
      for (std::int64_t l = 0; l < x.k; ++l) {
        sum += at(p.a, x.transpose_a ? l * x.m + i : i * x.k + l) *
               at(p.b, x.transpose_b ? j * x.k + l : l * x.n + j);
      }
      c.push_back(sum);
    }
  }
  return c;
}

template <class T, class Out>
std::vector<Out> product(const Case& x, const Problem<T, Out>& p) {
  // An output that is overwritten starts as NaN, which would show.
  std::vector<Out> c = x.accumulate ? p.c : std::vector<Out>(p.c.size(), static_cast<Out>(NAN));
  multiply(CpuProduct<T, Out>{.transpose_a = x.transpose_a,
                              .transpose_b = x.transpose_b,
                              .accumulate = x.accumulate,
                              .m = x.m,
                              .n = x.n,
                              .k = x.k,
                              .a = p.a.data(),
                              .b = p.b.data(),
                              .bias = x.bias ? p.bias.data() : nullptr,
                              .c = c.data()});
  return c;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  // Both of oneDNN's ways, each side of every threshold between them, loops for few rows with and
  // without a rest of each kind, and every empty extent.
  for (const auto& [m, n, k] : std::vector<std::array<std::int64_t, 3>>{{0, 3, 4},
                                                                        {3, 0, 4},
                                                                        {3, 4, 0},
                                                                        {1, 1, 1},
                                                                        {1, 65, 31},
                                                                        {2, 70, 100},
                                                                        {4, 130, 64},
                                                                        {8, 33, 17},
                                                                        {9, 257, 40},
                                                                        {33, 50, 129},
                                                                        {53, 1, 63},
                                                                        {70, 84, 63},
                                                                        {300, 290, 20}}) {
    for (int bits = 0; bits < 16; ++bits) {
      all.push_back({m, n, k, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0});
    }
  }
  return all;
}

template <class T, class Out>
void expect_all_cases(const Tolerance& tolerance) {
  for (const Case& x : cases()) {
    const auto p = random_problem<T, Out>(x, 11);
    EXPECT_TRUE(test::close(product(x, p), expected(x, p), tolerance))
        << x.m << "x" << x.n << "x" << x.k << (x.transpose_a ? " Aᵀ" : "")
        << (x.transpose_b ? " Bᵀ" : "") << (x.accumulate ? " accumulate" : "")
        << (x.bias ? " bias" : "");
  }
}

TEST(CpuProduct, FloatIsTheProduct) {
  expect_all_cases<float, float>({.absolute = 1e-5, .relative = 1e-6});
}
TEST(CpuProduct, DoubleIsTheProduct) {
  expect_all_cases<double, double>({.absolute = 1e-13, .relative = 1e-13});
}
TEST(CpuProduct, Bf16IsTheProductRoundedOnce) {
  expect_all_cases<bf16, bf16>({.absolute = 1e-5, .relative = 0x1.01p-8});
}
TEST(CpuProduct, Bf16IntoFloatIsTheProduct) {
  expect_all_cases<bf16, float>({.absolute = 1e-5, .relative = 1e-6});
}

TEST(CpuProduct, RepeatsBitForBit) {
  for (const Case& x :
       {Case{1, 70, 4000}, Case{40, 50, 5000, true}, Case{40, 50, 5000, false, true},
        Case{300, 200, 100, false, true, false, true}}) {
    const auto p = random_problem<float, float>(x, 12);
    const std::vector<float> first = product(x, p);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(product(x, p), first);
  }
}

TEST(CpuProduct, ThreadsMayMultiplyAtTheSameTime) {
  const Case x{.m = 20, .n = 60, .k = 30, .transpose_b = true};
  const auto p = random_problem<float, float>(x, 13);
  const std::vector<double> want = expected(x, p);
  std::vector<std::vector<float>> got(4);
#pragma omp parallel for num_threads(4)
  for (std::size_t i = 0; i < got.size(); ++i) got[i] = product(x, p);
  for (const auto& c : got) {
    EXPECT_TRUE(test::close(c, want, {.absolute = 1e-5, .relative = 1e-6}));
  }
}

template <class T, class Acc>
void expect_packed(const Tolerance& tolerance) {
  for (Case x : cases()) {
    if (x.transpose_a || x.bias) continue;
    for (const std::int64_t rows : {x.m, std::int64_t{32}}) {
      const auto p = random_problem<T, Acc>(x, 14);
      const PackedShape shape{.k = x.k, .n = x.n, .rows = rows};
      const Memory storage(Cpu{}, PackedMatrix<T>::bytes(shape));
      std::vector<Acc> c = x.accumulate ? p.c : std::vector<Acc>(p.c.size(), NAN);
      const PackedMatrix<T> packed(shape, p.b.data(), x.transpose_b, storage.data());
      packed.multiply(x.m, p.a.data(), c.data(), x.accumulate);
      EXPECT_TRUE(test::close(c, expected(x, p), tolerance))
          << x.m << "x" << x.n << "x" << x.k << (x.transpose_b ? " Bᵀ" : "") << " packed for "
          << rows;
    }
  }
}

// Columns of wider matrices, whose other columns stay as they were.
template <class T, class Acc>
void expect_gaps_kept(const Tolerance& tolerance) {
  constexpr std::int64_t kWideA = 3, kWideC = 5;
  for (Case x : cases()) {
    if (x.transpose_a || x.bias || x.m * x.n * x.k == 0) continue;
    const auto p = random_problem<T, Acc>(x, 15);
    const PackedShape shape{
        .k = x.k, .n = x.n, .rows = x.m, .a_stride = x.k + kWideA, .c_stride = x.n + kWideC};
    const Memory storage(Cpu{}, PackedMatrix<T>::bytes(shape));
    std::vector<T> a(static_cast<std::size_t>(x.m * shape.a_stride), static_cast<T>(NAN));
    std::vector<Acc> c(static_cast<std::size_t>(x.m * shape.c_stride), 7), inner, around;
    for (std::int64_t i = 0; i < x.m; ++i) {
      std::copy_n(p.a.begin() + i * x.k, x.k, a.begin() + i * shape.a_stride);
      std::copy_n(p.c.begin() + i * x.n, x.n, c.begin() + i * shape.c_stride);
    }
    const PackedMatrix<T> packed(shape, p.b.data(), x.transpose_b, storage.data());
    packed.multiply(x.m, a.data(), c.data(), x.accumulate);
    for (std::int64_t i = 0; i < x.m; ++i) {
      const auto row = c.begin() + i * shape.c_stride;
      inner.insert(inner.end(), row, row + x.n);
      around.insert(around.end(), row + x.n, row + shape.c_stride);
    }
    EXPECT_TRUE(test::close(inner, expected(x, p), tolerance)) << x.m << "x" << x.n << "x" << x.k;
    EXPECT_EQ(around, std::vector<Acc>(around.size(), 7));
  }
}

TEST(PackedMatrix, StepsOverGaps) {
  expect_gaps_kept<float, float>({.absolute = 1e-5, .relative = 1e-6});
  expect_gaps_kept<bf16, float>({.absolute = 1e-5, .relative = 1e-6});
  expect_gaps_kept<double, double>({.absolute = 1e-13, .relative = 1e-13});
}

TEST(PackedMatrix, GivesTheProductForAnyNumberOfRows) {
  expect_packed<float, float>({.absolute = 1e-5, .relative = 1e-6});
  expect_packed<bf16, float>({.absolute = 1e-5, .relative = 1e-6});
  expect_packed<double, double>({.absolute = 1e-13, .relative = 1e-13});
}

}  // namespace
}  // namespace carousel
