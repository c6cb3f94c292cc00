#pragma once

#include <cuda_runtime.h>

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace carousel {

inline constexpr int kWarp = 32;

/// A type that warp_reduce() and block_reduce() combine: a few 4-byte words, for shuffles.
template <class T>
concept Reducible = std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0 && sizeof(T) <= 16;

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

/// NaN if either is NaN, unlike fmaxf.
struct Max {
  __device__ float operator()(float a, float b) const { return a > b || isnan(a) ? a : b; }
};

/// `value` of the lane whose index differs from this lane's in the bits of `mask`.
template <Reducible T>
__device__ T shuffle_xor(const T& value, int mask) {
  using Words = std::array<std::uint32_t, sizeof(T) / 4>;
  Words words = std::bit_cast<Words>(value);
  for (std::uint32_t& word : words) word = __shfl_xor_sync(0xFFFFFFFFU, word, mask);
  return std::bit_cast<T>(words);
}

/// Combines the values of each group of kLanes neighbouring lanes. All lanes of the warp take part;
/// every lane gets the result of its group. `op` is associative. Its first argument is always the
/// value of the lower lanes, so that all lanes compute the same bits even if op(a, b) and op(b, a)
/// round differently (as a·x + b·y does with a fused multiply-add).
template <int kLanes = kWarp, Reducible T, class Op>
__device__ T warp_reduce(T value, const Op& op) {
  static_assert(kLanes >= 1 && kLanes <= kWarp && std::has_single_bit(unsigned{kLanes}));
#pragma unroll
  for (int mask = 1; mask < kLanes; mask *= 2) {
    const T other = shuffle_xor(value, mask);
    const bool upper = (threadIdx.x & static_cast<unsigned>(mask)) != 0;
    value = op(upper ? other : value, upper ? value : other);
  }
  return value;
}

/// Shared memory of block_reduce(): a member of the kernel's shared struct.
template <Reducible T, int kThreads>
struct BlockReduceStorage {
  T warp[kThreads / kWarp];
};

/// Combines the values of a block of kThreads threads along x, in a fixed order, and gives every
/// thread the result. All threads take part. It has its own barriers: reductions may follow each
/// other with the same storage, which must have no other use.
template <int kThreads, Reducible T, class Op>
__device__ T block_reduce(T value, const Op& op, BlockReduceStorage<T, kThreads>& storage) {
  constexpr int kWarps = kThreads / kWarp;
  static_assert(kThreads % kWarp == 0 && kWarps <= kWarp && std::has_single_bit(unsigned{kWarps}),
                "a block of 32, 64, … or 1024 threads");
  value = warp_reduce(value, op);
  if constexpr (kWarps > 1) {
    __syncthreads();  // the reduction before this one may still be reading
    if (threadIdx.x % kWarp == 0) storage.warp[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = storage.warp[threadIdx.x % kWarps];  // g++ hides reads of arguments from TSan
    value = warp_reduce<kWarps>(value, op);
  }
  return value;
}

}  // namespace carousel
