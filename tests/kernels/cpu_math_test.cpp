#include "kernels/common/cpu_math.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <limits>
#include <vector>

namespace carousel {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// |got − want| in units of the last place of `want`, which is not subnormal.
double units_in_last_place(float got, double want) {
  int exponent = 0;
  std::frexp(want, &exponent);
  return std::abs(static_cast<double>(got) - want) / std::ldexp(1.0, exponent - 24);
}

/// The worst error over floats of every sign, exponent and a spread of mantissas; infinite where a
/// NaN is lost or made, or a result is infinite or zero that should not be.
template <class F, class Exact>
double worst_error(const F& f, const Exact& exact) {
  constexpr std::uint32_t kStride = 1021;  // a prime: it meets all low bits
  std::vector<float> x, y;
  for (std::uint64_t bits = 0; bits <= 0xFFFFFFFFU; bits += kStride) {
    x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
  y.resize(x.size());
#pragma omp simd simdlen(16)
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = f(x[i]);  // as the kernels use them

  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = exact(static_cast<double>(x[i]));
    double error = 0;
    if (std::isnan(want) || std::isnan(y[i])) {
      error = std::isnan(want) && std::isnan(y[i]) ? 0 : HUGE_VAL;
    } else if (std::abs(want) > FLT_MAX) {
      error = std::isinf(y[i]) ? 0 : units_in_last_place(y[i], want);
    } else if (std::abs(want) < FLT_MIN) {
      error = std::abs(y[i]) <= 1.0001F * FLT_MIN && !(want == 0 && y[i] != 0) ? 0 : HUGE_VAL;
    } else {
      error = units_in_last_place(y[i], want);
    }
    worst = std::max(worst, error);
  }
  return worst;
}

TEST(CpuMath, ExpIsWithinItsBoundEverywhere) {
  EXPECT_LE(worst_error([](float x) { return cpu_exp(x); }, [](double x) { return std::exp(x); }),
            kCpuMathUlps);
}

TEST(CpuMath, SigmoidIsWithinItsBoundEverywhere) {
  EXPECT_LE(worst_error([](float x) { return cpu_sigmoid(x); },
                        [](double x) { return 1 / (1 + std::exp(-x)); }),
            kCpuMathUlps);
}

TEST(CpuMath, TanhIsWithinItsBoundEverywhere) {
  EXPECT_LE(worst_error([](float x) { return cpu_tanh(x); }, [](double x) { return std::tanh(x); }),
            kCpuMathUlps);
}

TEST(CpuMath, ErfcIsWithinItsBoundEverywhere) {
  EXPECT_LE(
      worst_error([](float x) { return cpu_erfc(x).value; }, [](double x) { return std::erfc(x); }),
      kCpuErfcUlps);
  EXPECT_LE(worst_error([](float x) { return cpu_erfc(x).exp; },
                        [](double x) { return std::exp(-x * x); }),
            kCpuMathUlps);
}

/// The same for double, against long double, where no result is subnormal or infinite.
template <class F, class Exact>
double worst_double_error(const F& f, const Exact& exact) {
  std::vector<double> x, y;
  for (double magnitude = 0x1p-60; magnitude < 707; magnitude *= 1.0007) {
    x.push_back(magnitude), x.push_back(-magnitude);
  }
  y.resize(x.size());
#pragma omp simd simdlen(16)
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = f(x[i]);
  long double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double want = exact(static_cast<long double>(x[i]));
    int exponent = 0;
    std::frexp(want, &exponent);
    worst = std::max(worst, std::abs(y[i] - want) / std::ldexp(1.0L, exponent - 53));
  }
  return static_cast<double>(worst);
}

TEST(CpuMath, DoubleIsWithinTheBoundToo) {
  EXPECT_LE(worst_double_error([](double x) { return cpu_exp(x); },
                               [](long double x) { return std::exp(x); }),
            kCpuMathUlps);
  EXPECT_LE(worst_double_error([](double x) { return cpu_sigmoid(x); },
                               [](long double x) { return 1 / (1 + std::exp(-x)); }),
            kCpuMathUlps);
  EXPECT_LE(worst_double_error([](double x) { return cpu_tanh(x); },
                               [](long double x) { return std::tanh(x); }),
            kCpuMathUlps);
  EXPECT_LE(worst_double_error(
                [](double x) { return cpu_erfc(x > 26 ? 26 : x).value; },  // beyond that, subnormal
                [](long double x) { return std::erfc(x > 26 ? 26 : x); }),
            kCpuErfcUlps);
  EXPECT_TRUE(std::isnan(cpu_erfc(std::nan("")).value));
  EXPECT_TRUE(std::isnan(cpu_exp(std::nan("")) + cpu_sigmoid(0.0)));
  EXPECT_TRUE(std::isnan(cpu_sigmoid(std::nan(""))) && std::isnan(cpu_tanh(std::nan(""))));
  EXPECT_EQ(cpu_exp(HUGE_VAL), HUGE_VAL);
  EXPECT_EQ(cpu_exp(-HUGE_VAL), 0.0);
  EXPECT_EQ(cpu_sigmoid(HUGE_VAL), 1.0);
  EXPECT_EQ(cpu_sigmoid(-HUGE_VAL), 0.0);
  EXPECT_EQ(cpu_tanh(-HUGE_VAL), -1.0);
}

TEST(CpuMath, LimitsAndZerosAreExact) {
  EXPECT_EQ(cpu_exp(kInfinity), kInfinity);
  EXPECT_EQ(cpu_exp(-kInfinity), 0.0F);
  EXPECT_EQ(cpu_exp(0.0F), 1.0F);
  EXPECT_EQ(cpu_exp(89.0F), kInfinity);
  EXPECT_EQ(cpu_sigmoid(kInfinity), 1.0F);
  EXPECT_EQ(cpu_sigmoid(-kInfinity), 0.0F);
  EXPECT_EQ(cpu_sigmoid(0.0F), 0.5F);
  EXPECT_EQ(cpu_tanh(kInfinity), 1.0F);
  EXPECT_EQ(cpu_tanh(-kInfinity), -1.0F);
  EXPECT_TRUE(std::signbit(cpu_tanh(-0.0F)));
  EXPECT_EQ(cpu_erfc(kInfinity).value, 0.0F);
  EXPECT_EQ(cpu_erfc(-kInfinity).value, 2.0F);
}

}  // namespace
}  // namespace carousel
