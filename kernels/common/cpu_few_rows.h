#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "kernels/common/cpu_product.h"
#include "kernels/cross_entropy/row.h"

// Products of a few rows of bf16 with a matrix that is stored as its transpose: a step of generation.
// They cost what reading the matrix costs, so it is read once, as it is stored. A number of C is a sum
// of 32 lanes, added in one order whatever the vector width and the threads.
namespace carousel::few_rows {

inline constexpr std::int64_t kMost = 4;  ///< rows; with more of them oneDNN is faster

using Vector = float __attribute__((vector_size(64)));
using Bits = std::uint32_t __attribute__((vector_size(64)));
inline constexpr std::int64_t kLanes = 32;
inline constexpr int kColumns = 4;          ///< whose sums are made at once
inline constexpr std::int64_t kPiece = 64;  ///< columns that a thread takes

/// 32 numbers in the order in which rows_of() has them.
struct Pair {
  Vector first, second;
};

/// bf16 is the upper half of a float: the even ones and the odd ones, each by one operation.
inline Pair load(const bf16* from) {
  Bits bits;
  std::memcpy(&bits, from, sizeof bits);
  return {reinterpret_cast<Vector>(bits << 16), reinterpret_cast<Vector>(bits & 0xFFFF0000U)};
}

inline std::int64_t padded(std::int64_t k) { return (k + kLanes - 1) / kLanes * kLanes; }

/// The rows of A as floats [m, padded(k)], zeros behind them; each 32 as load() gives them.
inline void widen_rows(const bf16* a, std::int64_t row_of_a, std::int64_t m, std::int64_t k,
                       float* to) {
  for (std::int64_t i = 0; i < m; ++i, a += row_of_a) {
    for (std::int64_t l = 0; l < k; l += kLanes, to += kLanes) {
      bf16 block[kLanes]{};
      std::copy_n(a + l, std::min(kLanes, k - l), block);
      const Pair pair = load(block);
      std::memcpy(to, &pair, sizeof pair);
    }
  }
}

/// The sums of four vectors, each as a tree: lane l and l + 8, then l + 4, l + 2, l + 1.
inline void add_lanes(const Vector (&v)[kColumns], float* sums) {
  Vector eights[2];
  for (int h = 0; h < 2; ++h) {
    const Vector &x = v[2 * h], &y = v[2 * h + 1];
    eights[h] =
        __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
        __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
  const Vector &x = eights[0], &y = eights[1];
  const Vector fours =
      __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
      __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  const auto twos = __builtin_shufflevector(fours, fours, 0, 1, 4, 5, 8, 9, 12, 13) +
                    __builtin_shufflevector(fours, fours, 2, 3, 6, 7, 10, 11, 14, 15);
  const auto ones = __builtin_shufflevector(twos, twos, 0, 2, 4, 6) +
                    __builtin_shufflevector(twos, twos, 1, 3, 5, 7);
  std::memcpy(sums, &ones, sizeof ones);
}

/// A row of A times four rows of B.
inline void dot(const float* a, const std::array<const bf16*, kColumns>& b, std::int64_t k,
                float* sums) {
  Pair lanes[kColumns]{};
  const auto add = [&](const float* factors, const auto& block) {
    Pair x;
    std::memcpy(&x.first, factors, sizeof x.first);
    std::memcpy(&x.second, factors + kLanes / 2, sizeof x.second);
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) {
      const Pair y = load(block(j));
      lanes[j].first += x.first * y.first;
      lanes[j].second += x.second * y.second;
    }
  };
  std::int64_t l = 0;
  for (; l + kLanes <= k; l += kLanes) add(a + l, [&](int j) { return b[j] + l; });
  if (l < k) {
    bf16 rest[kColumns][kLanes]{};
    for (int j = 0; j < kColumns; ++j) std::copy_n(b[j] + l, k - l, rest[j]);
    add(a + l, [&](int j) -> const bf16* { return rest[j]; });
  }
  Vector both[kColumns];
  for (int j = 0; j < kColumns; ++j) both[j] = lanes[j].first + lanes[j].second;
  add_lanes(both, sums);
}

/// Columns [first, first + count) of row i of C from their sums.
template <class Out>
void finish(const CpuProduct<bf16, Out>& p, std::int64_t i, std::int64_t first, std::int64_t count,
            float* sums) {
  Out* const to = p.c + i * p.row_of_c() + first;
  if (p.bias != nullptr) {
    for (std::int64_t c = 0; c < count; ++c) sums[c] += p.bias[first + c];
  }
  if (p.accumulate) {
    for (std::int64_t c = 0; c < count; ++c) sums[c] += row::widened<float>(to[c]);
  }
#pragma GCC ivdep
  for (std::int64_t c = 0; c < count; ++c) row::narrow(sums[c], to[c]);
}

/// Columns [first, last) of C, at most kPiece; `a` by widen_rows().
template <class Out>
void multiply_columns(const CpuProduct<bf16, Out>& p, const float* a, std::int64_t first,
                      std::int64_t last) {
  float sums[kMost][kPiece];
  for (std::int64_t j = first; j < last; j += kColumns) {
    std::array<const bf16*, kColumns> b;
    for (int c = 0; c < kColumns; ++c) b[c] = p.b + std::min(j + c, last - 1) * p.row_of_b();
    for (std::int64_t i = 0; i < p.m; ++i) {
      dot(a + i * padded(p.k), b, p.k, sums[i] + (j - first));
    }
  }
  for (std::int64_t i = 0; i < p.m; ++i) finish(p, i, first, last - first, sums[i]);
}

}  // namespace carousel::few_rows
