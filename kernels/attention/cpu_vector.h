#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

// Vectors of kLanes numbers, whatever the machine's registers hold, so that results do not depend on
// them.
// A processor whose registers are shorter has no agreed way to return such a vector, and none is
// returned: the functions that do are inlined.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace carousel::attention_cpu {

inline constexpr int kLanes = 16;

template <class A>
struct VectorOf {
  typedef A Type __attribute__((vector_size(kLanes * sizeof(A))));
};
template <class A>
using Vector = typename VectorOf<A>::Type;
template <class A>
using Whole = std::conditional_t<std::is_same_v<A, double>, std::int64_t, std::int32_t>;

template <class A>
[[gnu::always_inline]] inline Vector<A> load(const A* from) {
  Vector<A> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class A>
void store(const Vector<A>& v, A* to) {
  std::memcpy(to, &v, sizeof v);
}

constexpr std::int64_t rounded_up(std::int64_t x, std::int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}
constexpr std::int64_t rounded_down(std::int64_t x, std::int64_t multiple) {
  return x / multiple * multiple;
}

/// Numbers on cache lines, that are kept from use to use. Not initialised after the first.
template <class A>
class Numbers {
 public:
  A* take(std::int64_t count) {
    const auto lines = static_cast<std::size_t>(count / kLine + 1);  // of nothing, too, a place
    if (lines > lines_.size()) lines_.resize(lines);
    return lines_.data()->number;
  }

 private:
  static constexpr std::int64_t kLine = 64 / sizeof(A);
  struct alignas(64) Line {
    A number[kLine];
  };
  std::vector<Line> lines_;
};

/// The numbers by which exp() of A is computed: kernels/common/cpu_math.h has their meaning.
template <class A>
struct Exp {
  static constexpr A kRound = 0x1.8p23F, kLog2E = 0x1.715476p0F, kHigh = 0x1.63p-1F,
                     kLow = -0x1.bd0106p-13F, kLeast = -0x1.5d58ap6F;
  static constexpr int kTerms = 7, kBits = 23;
  static constexpr std::int32_t kBias = 127;
};
template <>
struct Exp<double> {
  static constexpr double kRound = 0x1.8p52, kLog2E = 0x1.71547652b82fep0, kHigh = 0x1.62e42feep-1,
                          kLow = 0x1.a39ef35793c76p-33, kLeast = -0x1.6232bdd7abcd2p9;
  static constexpr int kTerms = 13, kBits = 52;
  static constexpr std::int64_t kBias = 1023;
};
template <class A>
constexpr auto inverse_factorials() {
  std::array<A, Exp<A>::kTerms + 1> result{};
  double factorial = 1;
  for (int k = 0; k <= Exp<A>::kTerms; ++k) {
    if (k > 0) factorial *= k;
    result[static_cast<std::size_t>(k)] = static_cast<A>(1 / factorial);
  }
  return result;
}

/// exp(x) for x ≤ 1: 0 where it would be subnormal, NaN of NaN. cpu_exp() on a whole register, for
/// the compiler prefers shorter ones in loops.
template <class A>
[[gnu::always_inline]] inline Vector<A> exp_of(const Vector<A>& x) {
  using E = Exp<A>;
  using Bits = Vector<Whole<A>>;
  constexpr auto kFactor = inverse_factorials<A>();
  const Vector<A> least = Vector<A>{} + E::kLeast;
  const Vector<A> low = x < least ? least : x;  // written so that NaN passes through
  const Vector<A> shifted = low * E::kLog2E + E::kRound, n = shifted - E::kRound;
  const Vector<A> r = (low - n * E::kHigh) - n * E::kLow;
  Vector<A> p = Vector<A>{} + kFactor[E::kTerms];
#pragma GCC unroll 16
  for (int k = E::kTerms - 1; k >= 2; --k) p = p * r + kFactor[static_cast<std::size_t>(k)];
  Bits exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  // The integer n is in the low bits of `shifted`; those above leave the word.
  exponent = (exponent + E::kBias) << E::kBits;
  Vector<A> power;
  std::memcpy(&power, &exponent, sizeof power);
  return x < least ? Vector<A>{} : (A{1} + (r + (r * r) * p)) * power;
}

/// The rows h lanes apart of two vectors, their halves of 2h lanes exchanged.
template <int kHalf, class A>
void exchange(Vector<A>& x, Vector<A>& y) {
  constexpr auto low = [](int l) { return (l & kHalf) == 0 ? l : l - kHalf + kLanes; };
  constexpr auto high = [](int l) { return (l & kHalf) == 0 ? l + kHalf : l + kLanes; };
  const Vector<A> a = x, b = y;
  x = __builtin_shufflevector(a, b, low(0), low(1), low(2), low(3), low(4), low(5), low(6), low(7),
                              low(8), low(9), low(10), low(11), low(12), low(13), low(14), low(15));
  y = __builtin_shufflevector(a, b, high(0), high(1), high(2), high(3), high(4), high(5), high(6),
                              high(7), high(8), high(9), high(10), high(11), high(12), high(13),
                              high(14), high(15));
}
template <int kHalf, class A>
void exchange_all(Vector<A> (&v)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kHalf) == 0) exchange<kHalf, A>(v[i], v[i + kHalf]);
  }
}

/// The larger of each two lanes kHalf apart.
template <int kHalf, class A>
[[gnu::always_inline]] inline Vector<A> larger(const Vector<A>& v) {
  constexpr int h = kHalf;
  const Vector<A> other =
      __builtin_shufflevector(v, v, 0 ^ h, 1 ^ h, 2 ^ h, 3 ^ h, 4 ^ h, 5 ^ h, 6 ^ h, 7 ^ h, 8 ^ h,
                              9 ^ h, 10 ^ h, 11 ^ h, 12 ^ h, 13 ^ h, 14 ^ h, 15 ^ h);
  return other > v ? other : v;
}
template <class A>
A largest(const Vector<A>& v) {
  return larger<1, A>(larger<2, A>(larger<4, A>(larger<8, A>(v))))[0];
}
template <class A>
A total(const Vector<A>& v) {
  A sum = 0;
  for (int l = 0; l < kLanes; ++l) sum += v[l];
  return sum;
}

}  // namespace carousel::attention_cpu
