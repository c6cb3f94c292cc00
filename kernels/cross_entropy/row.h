#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/common/bf16.h"
#include "kernels/common/cpu_math.h"

// One row of numbers on the CPU: what cross_entropy, linear_cross_entropy and layer_norm need of it.
// Everything works on blocks of kLanes numbers, so that loops become vector code without licence to
// reorder sums: a sum is kLanes sums, added at the end in order, whatever the vector width of the
// machine.
namespace carousel::row {

inline constexpr int kLanes = 16;

template <class A>
struct Block {
  A lane[kLanes];
};

/// x as A. bf16 through its bits: a loop over objects of a class is not made vector code.
template <class A, class X>
A widened(const X& x) {
  if constexpr (std::is_same_v<X, bf16>) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
  } else {
    return static_cast<A>(x);
  }
}
template <class A, class X>
void narrow(A value, X& to) {
  if constexpr (std::is_same_v<X, bf16>) {
    to.bits = bf16(value).bits;
  } else {
    to = static_cast<X>(value);
  }
}

/// Folds x[0, size) into the lanes: lane = f(lane, x), the last block padded with `padding`. One
/// loop from memory to lanes: a widened copy in between would be stored and loaded at different
/// vector widths, and wait for itself.
template <class A, class X, class F>
void fold(Block<A>& lanes, const X* x, std::int64_t size, A padding, const F& f) {
  std::int64_t first = 0;
  for (; first + kLanes <= size; first += kLanes) {
#pragma omp simd
    for (int l = 0; l < kLanes; ++l) {
      lanes.lane[l] = f(lanes.lane[l], widened<A>(x[first + l]));
    }
  }
  if (first == size) return;
  Block<A> tail;
  for (int l = 0; l < kLanes; ++l) {
    tail.lane[l] = first + l < size ? widened<A>(x[first + l]) : padding;
  }
#pragma omp simd
  for (int l = 0; l < kLanes; ++l) lanes.lane[l] = f(lanes.lane[l], tail.lane[l]);
}

/// y[i] = f(x[i], y[i]) for i in [0, size); y may be x.
template <class A, class X, class Y, class F>
void transform(const X* x, Y* y, std::int64_t size, const F& f) {
  std::int64_t first = 0;
  for (; first + kLanes <= size; first += kLanes) {
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) {
      narrow(f(widened<A>(x[first + l]), widened<A>(y[first + l])), y[first + l]);
    }
  }
  Block<A> from{}, to{};
  const int count = static_cast<int>(size - first);
  for (int l = 0; l < count; ++l) from.lane[l] = widened<A>(x[first + l]);
  for (int l = 0; l < count; ++l) to.lane[l] = widened<A>(y[first + l]);
#pragma omp simd
  for (int l = 0; l < kLanes; ++l) to.lane[l] = f(from.lane[l], to.lane[l]);
  for (int l = 0; l < count; ++l) narrow(to.lane[l], y[first + l]);
}

template <class A>
A total(const Block<A>& block) {
  A sum = 0;
  for (const A x : block.lane) sum += x;
  return sum;
}

/// The largest number; NaN is passed over (it is found again by the sum of exponentials).
template <class A, class X>
A largest(const X* x, std::int64_t size) {
  constexpr A kNone = -std::numeric_limits<A>::infinity();
  const auto larger = [](A top, A value) { return value > top ? value : top; };
  Block<A> top;
  for (A& lane : top.lane) lane = kNone;
  fold(top, x, size, kNone, larger);
  A result = kNone;
  for (const A lane : top.lane) result = larger(result, lane);
  return result;
}

/// log Σ exp(x) as max + log sum: what is near 0 when one word is certain is log sum, and it keeps
/// its digits apart from max.
template <class A>
struct LogSumExp {
  A max, sum;
  A value() const { return max + std::log(sum); }
  /// What is subtracted before exp: not −inf, for then a masked row would hide a NaN in it.
  A shift() const { return max == -std::numeric_limits<A>::infinity() ? A{0} : max; }
};

template <class A, class X>
LogSumExp<A> log_sum_exp(const X* x, std::int64_t size) {
  LogSumExp<A> result{largest<A>(x, size), 0};
  const A shift = result.shift();
  Block<A> sum{};
  fold(sum, x, size, -std::numeric_limits<A>::infinity(),
       [shift](A so_far, A value) { return so_far + cpu_exp(value - shift); });
  result.sum = total(sum);
  return result;
}

/// x = exp(x − shift) in place; returns their sum.
template <class A>
A exponentiate(A* x, std::int64_t size, A shift) {
  transform<A>(x, x, size, [shift](A value, A) { return cpu_exp(value - shift); });
  Block<A> sum{};
  fold(sum, x, size, A{0}, [](A so_far, A value) { return so_far + value; });
  return total(sum);
}

/// Σ (from − x): the part of a smoothed loss that the target's logit has with every other.
template <class A, class X>
A sum_of_differences(const X* x, std::int64_t size, A from) {
  Block<A> sum{};
  fold(sum, x, size, from, [from](A so_far, A value) { return so_far + (from - value); });
  return total(sum);
}

/// (1 − ε)·nll + ε·mean_v (lse − x[v]), written as nll + ε·mean_v (logit − x[v]), where logit is
/// the target's. (max − logit) + log sum, not lse − logit: the large parts cancel before rounding.
template <class A>
A loss(A logit, std::int64_t vocab, A smoothing, A differences, const LogSumExp<A>& normaliser) {
  const A nll = (normaliser.max - logit) + std::log(normaliser.sum);
  // Infinite already: the target is masked, and its differences are inf − inf.
  if (smoothing == 0 || !(nll < std::numeric_limits<A>::infinity())) return nll;
  return nll + smoothing * (differences / static_cast<A>(vocab));
}

/// The same from the row, for a target in the vocabulary.
template <class A, class X>
A loss(const X* x, std::int64_t vocab, std::int32_t target, A smoothing,
       const LogSumExp<A>& normaliser) {
  const auto logit = static_cast<A>(x[target]);
  const A differences = smoothing == 0 ? A{0} : sum_of_differences(x, vocab, logit);
  return loss(logit, vocab, smoothing, differences, normaliser);
}

}  // namespace carousel::row
