#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"

// Rows that are reduced: a row belongs to kRowThreads threads, a warp or a whole block.
namespace carousel::row {

/// Threads of a block: several warps with a row each, or one row.
template <int kRowThreads>
inline constexpr int kBlockThreads = std::max(kRowThreads, 256);

/// Calls f(std::integral_constant<int, kRowThreads>) with the width that suits rows of `size`
/// numbers: a warp for the logits of a character model and for hidden units, whose row is a few loads
/// per lane and wants no barrier; a block of 1024 for the logits of a word model, whose row of 100 KB
/// must keep enough loads in flight although there are few more rows than multiprocessors.
template <class F>
void with_row_threads(std::int64_t size, const F& f) {
  if (size <= 1024) return f(std::integral_constant<int, kWarp>{});
  if (size <= 8192) return f(std::integral_constant<int, 256>{});
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

/// The sum over a row's threads, in each of them.
template <int kRowThreads, class V>
__device__ V sum_of_row(V value, BlockReduceStorage<V, kRowThreads>& storage) {
  if constexpr (kRowThreads == kWarp) {
    return warp_reduce(value, Sum{});
  } else {
    return block_reduce<kRowThreads>(value, Sum{}, storage);
  }
}

}  // namespace carousel::row
