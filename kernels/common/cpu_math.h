#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace carousel {

/// The most units in the last place by which the functions below miss the exact value. Measured over
/// every seventh float: exp 1.1, sigmoid 2.47, tanh 2.42.
inline constexpr double kCpuMathUlps = 2.5;
/// The same of erfc, whose tail is a product of several rounded factors. Measured 6.02 in float.
inline constexpr double kCpuErfcUlps = 7;

// exp, the logistic function and its logarithm, tanh, and the complementary error function for the
// loops of the CPU path: plain arithmetic without calls or branches, so that the compiler turns a loop
// over them into vector code. double serves gradient checks.
//
// Values   NaN gives NaN. exp: +inf from 88.73 on (709.79 in double), 0 below −87.33 (−708.39),
//          where the result would be subnormal. sigmoid and tanh reach their limits exactly and stay
//          within them. erfc: 0 where exp(−x²) is.
// Accuracy kCpuMathUlps, of erfc kCpuErfcUlps, where the exact value is not subnormal.
// Source   Cody & Waite 1980, Software Manual for the Elementary Functions, chapters 6 and 13:
//          argument reduction by a two-part ln 2. Polynomials: Taylor's series, whose remainder on
//          |r| ≤ ln 2 / 2 is below 2⁻²⁷ from the degrees used here.

namespace cpu_math {

/// x = n·ln 2 + r with |r| ≤ ln 2 / 2 (a little more at the edges of the range), |x| ≤ 2²⁰.
struct Reduced {
  float r;
  std::int32_t n;
};
inline Reduced reduce(float x) {
  // Adding 1.5·2²³ leaves the rounded integer in the low bits of the sum.
  constexpr float kRound = 0x1.8p23F;
  const float shifted = x * 0x1.715476p0F + kRound;
  const float n = shifted - kRound;
  // The upper part of ln 2 has 9 bits, so that n times it is exact.
  const float r = (x - n * 0x1.63p-1F) - n * -0x1.bd0106p-13F;
  return {r, std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound)};
}

/// exp(r) − 1 on |r| ≤ ln 2 / 2, with small relative error down to r = 0.
inline float expm1_reduced(float r) {
  float p = 1.0F / 5040;
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  return r + (r * r) * p;
}

/// 2ⁿ for −126 ≤ n ≤ 127.
inline float power_of_two(std::int32_t n) { return std::bit_cast<float>((n + 127) << 23); }

struct ReducedDouble {
  double r;
  std::int64_t n;
};
inline ReducedDouble reduce(double x) {
  constexpr double kRound = 0x1.8p52;
  const double shifted = x * 0x1.71547652b82fep0 + kRound;
  const double n = shifted - kRound;
  // The upper part of ln 2 has 32 bits.
  const double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
  return {r, std::bit_cast<std::int64_t>(shifted) - std::bit_cast<std::int64_t>(kRound)};
}
inline double expm1_reduced(double r) {
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  return r + (r * r) * p;
}
/// 2ⁿ for −1022 ≤ n ≤ 1023.
inline double power_of_two(std::int64_t n) { return std::bit_cast<double>((n + 1023) << 52); }

/// (t + 3)·exp(t²)·erfc(t) as a polynomial in (t − 3) / (t + 3), the highest power first: relative
/// error below 2⁻²⁹ for t ≤ 9.4, 2⁻⁵⁷ for t ≤ 27.
template <class R>
inline constexpr float kErfc[] = {
    -0x1.5a902cp-12F, -0x1.0291e0p-11F, 0x1.936d0cp-9F, -0x1.403e9cp-10F, -0x1.b7b61ep-6F,
    0x1.e99688p-4F,   -0x1.3deae2p-2F,  0x1.2e3268p-1F, -0x1.c44c48p-1F,  0x1.12f21ep+0F};
template <>
inline constexpr double kErfc<double>[] = {
    -0x1.8780936a72d4cp-30, -0x1.9edc4a97a5d72p-28, 0x1.0ad1077430d1fp-29,  0x1.98ac331d740d3p-25,
    0x1.5d7a05e3e61acp-25,  -0x1.f0affe67a4ae9p-23, -0x1.b071cd626ddbfp-22, 0x1.0bdc64e28f929p-20,
    0x1.72c0a72fb65a7p-19,  -0x1.3eb19a17bdf3bp-18, -0x1.25169c65d0064p-16, 0x1.fdfed119b9920p-16,
    0x1.c324fa70b1b22p-14,  -0x1.2238fbf45edf3p-12, -0x1.1f78e036a487dp-11, 0x1.8dae3a2006f34p-9,
    -0x1.3dd3e71ba8963p-10, -0x1.b78993d6a314cp-6,  0x1.e995f11b18ff2p-4,   -0x1.3deb21415dd34p-2,
    0x1.2e326945de2a6p-1,   -0x1.c44c471baa375p-1,  0x1.12f21ddd9f5e2p+0};

}  // namespace cpu_math

inline float cpu_exp(float x) {
  const float top = x > 89.0F ? 89.0F : x;  // written so that NaN passes through
  const float low = top < -88.0F ? -88.0F : top;
  const auto [r, n] = cpu_math::reduce(low);
  // In two factors, for 2ⁿ alone overflows at n = 128.
  const std::int32_t half = n >> 1;
  const float y = (1.0F + cpu_math::expm1_reduced(r)) * cpu_math::power_of_two(half) *
                  cpu_math::power_of_two(n - half);
  return x < -0x1.5d58ap6F ? 0.0F : y;
}

/// exp(x) for x ≤ 0.
inline float cpu_exp_negative(float x) {
  const auto [r, n] = cpu_math::reduce(x < -88.0F ? -88.0F : x);
  const float y = (1.0F + cpu_math::expm1_reduced(r)) * cpu_math::power_of_two(n);
  return x < -0x1.5d58ap6F ? 0.0F : y;
}

/// 1 / (1 + exp(−x))
inline float cpu_sigmoid(float x) {
  const float negative = -x;
  const float top = negative > 88.0F ? 88.0F : negative;
  const float low = top < -88.0F ? -88.0F : top;
  const auto [r, n] = cpu_math::reduce(low);
  const float scale = cpu_math::power_of_two(n);
  const float y = 1.0F / (1.0F + (scale + scale * cpu_math::expm1_reduced(r)));
  return x < -88.0F ? 0.0F : y;
}

/// (exp(2|x|) − 1) / (exp(2|x|) + 1) with the sign of x; the difference is formed without
/// cancellation, so that small arguments keep their digits.
inline float cpu_tanh(float x) {
  const float magnitude = 2.0F * std::fabs(x);
  const float top = magnitude > 40.0F ? 40.0F : magnitude;
  const auto [r, n] = cpu_math::reduce(top);
  const float scale = cpu_math::power_of_two(n);
  const float expm1 = scale * cpu_math::expm1_reduced(r) + (scale - 1.0F);
  return std::copysign(expm1 / (expm1 + 2.0F), x);
}

inline double cpu_exp(double x) {
  const double top = x > 710.0 ? 710.0 : x;
  const double low = top < -709.0 ? -709.0 : top;
  const auto [r, n] = cpu_math::reduce(low);
  const std::int64_t half = n >> 1;
  const double y = (1.0 + cpu_math::expm1_reduced(r)) * cpu_math::power_of_two(half) *
                   cpu_math::power_of_two(n - half);
  return x < -0x1.6232bdd7abcd2p9 ? 0.0 : y;
}

inline double cpu_exp_negative(double x) {
  const auto [r, n] = cpu_math::reduce(x < -709.0 ? -709.0 : x);
  const double y = (1.0 + cpu_math::expm1_reduced(r)) * cpu_math::power_of_two(n);
  return x < -0x1.6232bdd7abcd2p9 ? 0.0 : y;
}

inline double cpu_sigmoid(double x) {
  const double negative = -x;
  const double top = negative > 709.0 ? 709.0 : negative;
  const double low = top < -708.0 ? -708.0 : top;
  const auto [r, n] = cpu_math::reduce(low);
  const double scale = cpu_math::power_of_two(n);
  const double y = 1.0 / (1.0 + (scale + scale * cpu_math::expm1_reduced(r)));
  return x < -708.0 ? 0.0 : y;
}

inline double cpu_tanh(double x) {
  const double magnitude = 2.0 * std::fabs(x);
  const double top = magnitude > 80.0 ? 80.0 : magnitude;
  const auto [r, n] = cpu_math::reduce(top);
  const double scale = cpu_math::power_of_two(n);
  const double expm1 = scale * cpu_math::expm1_reduced(r) + (scale - 1.0);
  return std::copysign(expm1 / (expm1 + 2.0), x);
}

/// ln(1 / (1 + exp(−x))) = min(x, 0) − ln(1 + e) with e = exp(−|x|), whose logarithm is
/// 2·artanh(e / (2 + e)): a series in s ≤ 1/3.
template <class R>
inline R cpu_log_sigmoid(R x) {
  constexpr int kTerms = sizeof(R) == 4 ? 8 : 17;
  const R e = cpu_exp(-std::fabs(x)), s = e / (2 + e), square = s * s;
  R sum = 1 / static_cast<R>(2 * kTerms - 1);
  for (int k = kTerms - 1; k > 0; --k) sum = sum * square + 1 / static_cast<R>(2 * k - 1);
  return (x > 0 ? R{0} : x) - 2 * s * sum;
}

/// 1 − erf(x), without the cancellation of that difference, and what it is made with.
template <class R>
struct Erfc {
  R value, exp;  ///< erfc(x), exp(−x²)
};

/// Source   Shepherd & Laframboise 1981, Mathematics of Computation 36:249: the variable of the
///          polynomial. The factor t + 3 needs no division of its own.
template <class R>
inline Erfc<R> cpu_erfc(R x) {
  constexpr R kMost = sizeof(R) == 4 ? 10 : 28;
  const R magnitude = std::fabs(x), t = magnitude > kMost ? kMost : magnitude;
  // exp(−t²) with what rounding t² has lost.
  const R square = t * t, lost = std::fma(t, t, -square);
  const R inverse = 1 / (t + 3), q = (t - 3) * inverse;
  R sum = 0;
  // Fused by name: which products a compiler fuses by itself depends on its options.
#pragma GCC unroll 32
  for (const R coefficient : cpu_math::kErfc<R>) sum = std::fma(sum, q, coefficient);
  const R rounded = cpu_exp_negative(-square), e = std::fma(-rounded, lost, rounded),
          tail = e * sum * inverse;
  return {x < 0 ? 2 - tail : tail, e};
}

}  // namespace carousel
