#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/vector_io.cuh"

// One row of logits on CUDA, for the two ops that need it: cross_entropy and linear_cross_entropy.
// A row belongs to kRowThreads threads: a warp, or a whole block.
namespace carousel::row {

/// Threads of a block: several warps with a row each, or one row.
template <int kRowThreads>
inline constexpr int kBlockThreads = std::max(kRowThreads, 256);

/// Calls f(std::integral_constant<int, kRowThreads>) with the width that suits rows of `vocab`
/// logits: a warp for the vocabulary of a character model, whose row is a few loads per lane and
/// wants no barrier; a block of 1024 for that of a word model, whose row of 100 KB must keep enough
/// loads in flight although there are few more rows than multiprocessors.
template <class F>
void with_row_threads(std::int64_t vocab, const F& f) {
  if (vocab <= 1024) return f(std::integral_constant<int, kWarp>{});
  if (vocab <= 8192) return f(std::integral_constant<int, 256>{});
  return f(std::integral_constant<int, 1024>{});
}

/// The launch that gives every row its threads; the kernel strides over rows beyond the grid.
template <int kRowThreads, class Shared>
Grid grid(std::int64_t rows, Where at = Where::here()) {
  constexpr int kThreads = kBlockThreads<kRowThreads>;
  return {.blocks = blocks_for(rows, kThreads / kRowThreads),
          .threads = kThreads,
          .shared_bytes = sizeof(Shared),
          .at = at};
}

/// Calls f(n) for this thread's rows: all kRowThreads threads of a row together.
template <int kRowThreads, class F>
__device__ void for_each_row(std::int64_t rows, const F& f) {
  constexpr std::int64_t kRows = kBlockThreads<kRowThreads> / kRowThreads;
  const std::int64_t first = blockIdx.x * kRows + threadIdx.x / kRowThreads;
  for (std::int64_t n = first; n < rows; n += gridDim.x * kRows) f(n);
}

/// Calls f(first, count) for this thread's pieces of a row of `size` numbers at `row`. Every piece
/// but the first and the last has N numbers and begins on a multiple of N, so that rows of odd
/// width are read 128 bits at a time as well. Threads have the same pieces at every call.
template <int kRowThreads, int N, class T, class F>
__device__ void for_each_piece(const T* row, std::int64_t size, const F& f) {
  const auto address = reinterpret_cast<std::uintptr_t>(row) / sizeof(T);
  const auto head = static_cast<std::int64_t>((N - address % N) % N);
  for (std::int64_t piece = threadIdx.x % kRowThreads;; piece += kRowThreads) {
    const std::int64_t first = piece == 0 ? 0 : head + (piece - 1) * N;
    if (first >= size) return;
    const std::int64_t until = head + piece * N;
    f(first, (until < size ? until : size) - first);
  }
}

/// What a row's loss is made of: Σ exp(x − max) as it grows, and max, so that nothing overflows
/// and the row is read once; and Σ (from − x), which a smoothed loss needs. It has no default
/// member initialisers, for it lives in shared memory.
struct Sums {
  float max, sum, differences;
  __device__ float log_sum_exp() const { return max + logf(sum); }
  /// What is subtracted before exp: not −inf, for then a masked row would hide a NaN in it.
  __device__ float shift() const { return max == -INFINITY ? 0.0F : max; }
};

/// exp(from − to), by which a sum relative to `from` is multiplied to be relative to `to`. Equal
/// infinities give 1; a NaN in the sum stays one.
__device__ inline float rescale(float from, float to) {
  return from == to ? 1.0F : expf(from - to);
}

struct Merge {
  __device__ Sums operator()(const Sums& a, const Sums& b) const {
    const float max = a.max > b.max ? a.max : b.max;
    return {max, a.sum * rescale(a.max, max) + b.sum * rescale(b.max, max),
            a.differences + b.differences};
  }
};

/// Adds N numbers, −inf where there are fewer. One rescaling for all of them.
template <int N>
__device__ void add(Sums& sums, const float (&x)[N]) {
  float max = sums.max;  // never NaN: comparisons pass it over, and exp finds it
#pragma unroll
  for (int i = 0; i < N; ++i) max = x[i] > max ? x[i] : max;
  sums.sum *= rescale(sums.max, max);
  sums.max = max;
  const float shift = sums.shift();
#pragma unroll
  for (int i = 0; i < N; ++i) sums.sum += expf(x[i] - shift);
}

template <int kRowThreads>
struct Shared {
  BlockReduceStorage<Sums, kRowThreads> sums;
};

/// The sums of a whole row, in every one of its threads. When they are there, all threads have read
/// the row: it may be written. `differences` is filled if `smoothed`.
template <int kRowThreads, int N, class T>
__device__ Sums sum_row(const T* x, std::int64_t vocab, float from, bool smoothed,
                        Shared<kRowThreads>& shared) {
  Sums sums{-INFINITY, 0.0F, 0.0F};
  for_each_piece<kRowThreads, N>(x, vocab, [&](std::int64_t first, std::int64_t count) {
    float piece[N];
    load(x + first, count, piece, -INFINITY);
    add(sums, piece);
    if (smoothed) {
#pragma unroll
      for (int i = 0; i < N; ++i) sums.differences += i < count ? from - piece[i] : 0.0F;
    }
  });
  if constexpr (kRowThreads == kWarp) {
    sums = warp_reduce(sums, Merge{});
    __syncwarp();
    return sums;
  } else {
    return block_reduce<kRowThreads>(sums, Merge{}, shared.sums);
  }
}

/// (1 − ε)·nll + ε·mean_v (lse − x[v]), written as nll + ε·mean_v (logit − x[v]).
__device__ inline float loss(const Sums& sums, float logit, float smoothing, std::int64_t vocab) {
  // (max − logit) + log sum, not lse − logit: the large parts cancel before rounding.
  const float nll = (sums.max - logit) + logf(sums.sum);
  // Infinite already: the target is masked, and its differences are inf − inf.
  if (smoothing == 0.0F || !(nll < INFINITY)) return nll;
  return nll + smoothing * (sums.differences / static_cast<float>(vocab));
}

}  // namespace carousel::row
