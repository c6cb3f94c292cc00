#pragma once

#include <cuda_runtime.h>

#include <array>
#include <bit>
#include <cstdint>
#include <string>

#include "kernels/common/bf16.h"
#include "kernels/common/journal.h"

namespace carousel {

/// Values of type T in one 128-bit access: 4 floats, 8 bf16.
template <class T>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(T));

namespace detail {

/// 128 bits as one load or store. It is may_alias because the memory has other types. It is aligned
/// for nvcc only, which needs that for one instruction. g++ 12 merges this load with the vectorised
/// scalar loop below and would use the aligned instruction for both.
#ifdef __CUDACC__
struct alignas(16) [[gnu::may_alias]] Words {
#else
struct [[gnu::may_alias]] Words {
#endif
  std::uint32_t word[4];
};

template <class T>
__device__ bool aligned(const T* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % sizeof(Words) == 0;
}

}  // namespace detail

/// to[i] = from[i] for N values, a multiple of kVector<T>. Moves 128 bits at a time if `from` is
/// aligned to that, else single values (a row of odd width).
template <int N, class T>
__device__ void load(const T* from, float (&to)[N]) {
  static_assert(N % kVector<T> == 0);
  if (!detail::aligned(from)) {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = static_cast<float>(from[i]);
    return;
  }
#pragma unroll
  for (int v = 0; v < N; v += kVector<T>) {
    const auto words = *reinterpret_cast<const detail::Words*>(from + v);
    const auto values = std::bit_cast<std::array<T, kVector<T>>>(words);
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) to[v + i] = static_cast<float>(values[i]);
  }
}

/// The same for the first `count` values; count may be less than N (a tail) or more. The others
/// become `fill`. Nothing beyond `count` is read.
template <int N, class T>
__device__ void load(const T* from, std::int64_t count, float (&to)[N], float fill = 0.0F) {
  if (count >= N) return load<N>(from, to);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = i < count ? static_cast<float>(from[i]) : fill;
}

/// to[i] = from[i], rounded to T, for N values, a multiple of kVector<T>.
template <int N, class T>
__device__ void store(T* to, const float (&from)[N]) {
  static_assert(N % kVector<T> == 0);
  if (!detail::aligned(to)) {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = static_cast<T>(from[i]);
    return;
  }
#pragma unroll
  for (int v = 0; v < N; v += kVector<T>) {
    std::array<T, kVector<T>> values;
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) values[i] = static_cast<T>(from[v + i]);
    *reinterpret_cast<detail::Words*>(to + v) = std::bit_cast<detail::Words>(values);
  }
}

/// The same for the first `count` values. Nothing beyond them is written.
template <int N, class T>
__device__ void store(T* to, std::int64_t count, const float (&from)[N]) {
  if (count >= N) return store<N>(to, from);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i < count) to[i] = static_cast<T>(from[i]);
  }
}

/// Notes in the journal if rows of `width` values prevent 128-bit accesses. `extent` is the name of
/// that width in the contract.
template <class T>
void note_row_width(const char* extent, std::int64_t width) {
  Journal* const journal = Journal::mine();
  if (journal == nullptr || width % kVector<T> == 0) return;
  journal->note(std::string("refused: accesses of 128 bits, for ") + extent + " = " +
                std::to_string(width) + " is no multiple of " + std::to_string(kVector<T>));
}

}  // namespace carousel
