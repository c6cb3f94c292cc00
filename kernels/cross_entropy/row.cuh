#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/reduce/row_threads.cuh"

// One row of logits on CUDA, for the two ops that need it: cross_entropy and linear_cross_entropy.
namespace carousel::row {

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
