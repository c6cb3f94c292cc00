#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/attention/heads.h"
#include "kernels/common/bf16.h"
#include "kernels/common/cuda/ptx.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/dropout/dropout.h"

// Tiles of a head on CUDA and their products by tensor cores. A warp has 16 rows of a result; lane 4g + t
// of it has, of each 8 columns, (g, 2t), (g, 2t + 1), (g + 8, 2t) and (g + 8, 2t + 1). Factors are taken
// in pairs along the depth in that same order, so that a result can be a factor without leaving its
// registers.
namespace carousel::attention_cuda {

inline constexpr int kWarpRows = 16, kDepth = 16;

/// Four numbers of a warp's 16×8.
using Piece = float[4];

/// 16×16 numbers on the left of a product, 16×8 on the right. float is a sum of two tf32, and a product
/// three, which leaves out less than float's rounding; with tf32 allowed only the first is used.
template <class T>
struct Left {
  std::uint32_t high[2][4], low[2][4];
};
template <class T>
struct Right {
  std::uint32_t high[2][2], low[2][2];
};
template <>
struct Left<bf16> {
  std::uint32_t word[4];
};
template <>
struct Right<bf16> {
  std::uint32_t word[2];
};

/// The nearest number with the ten bits of tf32, and what it leaves of x.
__device__ inline void split(float x, std::uint32_t& high, std::uint32_t& low) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const bool finite = (bits & 0x7F800000U) != 0x7F800000U;
  high = finite ? (bits + 0x1000U) & 0xFFFFE000U : bits;
  low = std::bit_cast<std::uint32_t>(finite ? x - std::bit_cast<float>(high) : 0.0F);
}

__device__ inline std::uint32_t pair_of(bf16 first, bf16 second) {
  return first.bits | static_cast<std::uint32_t>(second.bits) << 16;
}

/// Pair `i` of a left factor: rows g and g + 8, then the same further along the depth.
__device__ inline void set_pair(Left<float>& a, int i, float first, float second) {
  split(first, a.high[i / 2][i % 2], a.low[i / 2][i % 2]);
  split(second, a.high[i / 2][i % 2 + 2], a.low[i / 2][i % 2 + 2]);
}
__device__ inline void set_pair(Right<float>& b, int i, float first, float second) {
  split(first, b.high[i][0], b.low[i][0]);
  split(second, b.high[i][1], b.low[i][1]);
}
template <class V>
__device__ void set_pair(Left<bf16>& a, int i, V first, V second) {
  a.word[i] = pair_of(static_cast<bf16>(first), static_cast<bf16>(second));
}
template <class V>
__device__ void set_pair(Right<bf16>& b, int i, V first, V second) {
  b.word[i] = pair_of(static_cast<bf16>(first), static_cast<bf16>(second));
}

__device__ inline void multiply(Piece& d, const Left<bf16>& a, const Right<bf16>& b, bool) {
  ptx::multiply_bf16(d, a.word, b.word);
}
/// The small products first. The depth is permuted, alike in both factors: a pair's first numbers are
/// the first four of eight, the second the others.
__device__ inline void multiply(Piece& d, const Left<float>& a, const Right<float>& b, bool tf32) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!tf32) {
      ptx::multiply_tf32(d, a.low[half], b.high[half]);
      ptx::multiply_tf32(d, a.high[half], b.low[half]);
    }
    ptx::multiply_tf32(d, a.high[half], b.high[half]);
  }
}

/// This lane's place.
struct Lane {
  int g, t;
  __device__ Lane()
      : g(static_cast<int>(threadIdx.x % kWarp) / 4),
        t(static_cast<int>(threadIdx.x % kWarp) % 4) {}
  /// The row of numbers 2·half and 2·half + 1 of a piece.
  __device__ int row(int half) const { return g + 8 * half; }
};

/// The padding spreads the rows that a warp reads at once over the banks.
template <class T, int kWidth>
struct Row {
  T at[kWidth + 8];
};

/// Rows first … first + 15 of a tile at depth k as a left factor.
template <class T, int kWidth>
__device__ Left<T> left_of(const Row<T, kWidth>* tile, int first, int k) {
  const Lane lane;
  Left<T> a;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const T* const from = tile[first + lane.row(i % 2)].at + k + 2 * lane.t + i / 2 * 8;
    set_pair(a, i, from[0], from[1]);
  }
  return a;
}
/// A result of 16 columns as a left factor.
template <class T>
__device__ Left<T> left_of(const Piece& first, const Piece& second) {
  Left<T> a;
  set_pair(a, 0, first[0], first[1]);
  set_pair(a, 1, first[2], first[3]);
  set_pair(a, 2, second[0], second[1]);
  set_pair(a, 3, second[2], second[3]);
  return a;
}
/// Rows n … n + 7 of a tile, at depth k along its columns, as a right factor: its transpose.
template <class T, int kWidth>
__device__ Right<T> right_of_rows(const Row<T, kWidth>* tile, int n, int k) {
  const Lane lane;
  Right<T> b;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const T* const from = tile[n + lane.g].at + k + 2 * lane.t + i * 8;
    set_pair(b, i, from[0], from[1]);
  }
  return b;
}
/// Columns n … n + 7 of a tile, at depth k along its rows, as a right factor.
template <class T, int kWidth>
__device__ Right<T> right_of_columns(const Row<T, kWidth>* tile, int n, int k) {
  const Lane lane;
  Right<T> b;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = k + 2 * lane.t + i * 8;
    set_pair(b, i, tile[row].at[n + lane.g], tile[row + 1].at[n + lane.g]);
  }
  return b;
}

template <int kPieces>
__device__ void clear(Piece (&pieces)[kPieces]) {
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) pieces[j][e] = 0;
  }
}

/// to = rows `first` … of `a` times the rows of `b`, transposed: scores.
template <class T, int kWidth, int kPieces>
__device__ void multiply_rows(Piece (&to)[kPieces], const Row<T, kWidth>* a, int first,
                              const Row<T, kWidth>* b, bool tf32) {
  clear(to);
#pragma unroll 1
  for (int k = 0; k < kWidth; k += kDepth) {
    const Left<T> left = left_of(a, first, k);
#pragma unroll
    for (int j = 0; j < kPieces; ++j) multiply(to[j], left, right_of_rows(b, 8 * j, k), tf32);
  }
}

/// to += a, a result of 8·kInner columns, times as many rows of `b`.
template <class T, int kWidth, int kInner>
__device__ void add_product(Piece (&to)[kWidth / 8], const Piece (&a)[kInner],
                            const Row<T, kWidth>* b, bool tf32) {
#pragma unroll
  for (int k = 0; k < kInner; k += 2) {
    const Left<T> left = left_of<T>(a[k], a[k + 1]);
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      multiply(to[j], left, right_of_columns(b, 8 * j, 8 * k), tf32);
    }
  }
}

/// Steps first … first + kRows − 1 of a head of row b to shared memory: zeros from step `end` on and
/// beyond D. By all threads of the block.
template <int kRows, class T, int kWidth>
__device__ void load_tile(Row<T, kWidth>* to, const HeadRows<const T>& from, std::int64_t b,
                          std::int64_t a, std::int64_t width, std::int64_t first,
                          std::int64_t end) {
  constexpr int N = kVector<T>, kPieces = kWidth / N;
  const T* const head = from.head(b, a, width);
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces;
       i += static_cast<int>(blockDim.x)) {
    const int row = i / kPieces, column = i % kPieces * N;
    const std::int64_t step = first + row;
    float values[N];
    load(head + (step < end ? step : 0) * from.stride() + column,
         step < end ? width - column : std::int64_t{0}, values);
    store(to[row].at + column, values);
  }
}

/// Calls f(row, column, element) for this lane's numbers of a warp's result.
template <int kPieces, class F>
__device__ void for_elements(Piece (&pieces)[kPieces], const F& f) {
  const Lane lane;
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) f(lane.row(e / 2), 8 * j + 2 * lane.t + e % 2, pieces[j][e]);
  }
}

/// Writes factor·element, or adds it, at row first + … of a head, below `end`.
template <class T, int kPieces>
__device__ void store_head(const HeadGradient<T>& to, std::int64_t b, std::int64_t a,
                           std::int64_t width, std::int64_t first, std::int64_t end, float factor,
                           Piece (&pieces)[kPieces]) {
  T* const head = to.rows.head(b, a, width);
  for_elements(pieces, [&](int row, int column, float& value) {
    if (first + row >= end || column >= width) return;
    T& out = head[(first + row) * to.rows.stride() + column];
    out = static_cast<T>(to.accumulate ? fmaf(factor, value, static_cast<float>(out))
                                       : factor * value);
  });
}

/// What a weight is multiplied by: of element n of the scores. Not words()[n % 4], for an array with
/// such an index lies in local memory.
__device__ inline float kept_factor(const RandomSource& source, std::int64_t n,
                                    float drop_probability, float scale) {
  const auto words = source.words(static_cast<std::uint64_t>(n) / 4, *source.step.data);
  const int i = static_cast<int>(n % 4);
  const std::uint32_t word = i == 0 ? words[0] : i == 1 ? words[1] : i == 2 ? words[2] : words[3];
  return dropout_keeps(word, drop_probability) ? scale : 0.0F;
}

/// A block's place among tiles × heads × rows of the batch.
struct Place {
  std::int64_t tile, head, b;
  __device__ Place(std::int64_t tiles, std::int64_t heads)
      : tile(blockIdx.x % tiles), head(blockIdx.x / tiles % heads), b(blockIdx.x / tiles / heads) {}
};

}  // namespace carousel::attention_cuda
