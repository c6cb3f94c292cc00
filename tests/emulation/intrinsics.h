#pragma once

#include <math.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/emulation/language.h"

namespace emulation {

/// Waits for every thread of the block (or cluster); gives the number of predicates that held.
unsigned block_barrier(Site at, bool predicate);
void cluster_barrier(Site at);

/// Waits for the lanes of `mask`; lane l brings values[l] and takes the value of the lane
/// `source` names. A lane that does not take part has the pattern of fresh memory.
void warp_barrier(unsigned mask, Site at);
std::uint64_t warp_shuffle(unsigned mask, std::uint64_t value, unsigned source, Site at);
unsigned warp_ballot(unsigned mask, bool predicate, Site at);
unsigned lane();

/// A point at which a thread may be waiting for another's write. Other threads run; if nothing but
/// such points is passed for long, the kernel is stuck.
void spin_point(Site at);

/// A write that others may be waiting for.
void progress();

/// __threadfence(): orders what came before it with what comes after another thread's.
void fence();

template <class T>
std::uint64_t to_word(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}
template <class T>
T from_word(std::uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

/// Takes the value of lane `source`, or keeps the own one if that lies outside [first, last].
template <class T>
T shuffle(unsigned mask, T value, int source, int first, int last, Site at) {
  if (source < first || source > last) source = static_cast<int>(lane());
  return from_word<T>(warp_shuffle(mask, to_word(value), static_cast<unsigned>(source), at));
}

}  // namespace emulation

inline void __syncthreads(emulation::Site at = emulation::Site::here()) {
  emulation::block_barrier(at, false);
}
inline int __syncthreads_count(int predicate, emulation::Site at = emulation::Site::here()) {
  return static_cast<int>(emulation::block_barrier(at, predicate != 0));
}
inline int __syncthreads_or(int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::block_barrier(at, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::block_barrier(at, predicate == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU, emulation::Site at = emulation::Site::here()) {
  emulation::warp_barrier(mask, at);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              emulation::Site at = emulation::Site::here()) {
  const int first = static_cast<int>(emulation::lane()) & ~(width - 1);
  return emulation::shuffle(mask, value, first + (source & (width - 1)), 0, 31, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  emulation::Site at = emulation::Site::here()) {
  const auto own = static_cast<int>(emulation::lane());
  return emulation::shuffle(mask, value, own ^ lanes, 0, own | (width - 1), at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                   emulation::Site at = emulation::Site::here()) {
  const auto own = static_cast<int>(emulation::lane());
  return emulation::shuffle(mask, value, own + static_cast<int>(lanes), 0, own | (width - 1), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                 emulation::Site at = emulation::Site::here()) {
  const auto own = static_cast<int>(emulation::lane());
  return emulation::shuffle(mask, value, own - static_cast<int>(lanes), own & ~(width - 1), 31, at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulation::Site at = emulation::Site::here()) {
  return emulation::warp_ballot(mask, predicate != 0, at);
}
inline int __any_sync(unsigned mask, int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::warp_ballot(mask, predicate != 0, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::warp_ballot(mask, predicate == 0, at) == 0;
}
inline void __threadfence() { emulation::fence(); }

// Atomics are relaxed, as CUDA's are: they order nothing but themselves.
template <class T>
requires std::is_integral_v<T> T atomicAdd(T* address, std::type_identity_t<T> value) {
  emulation::progress();
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <class T>
requires std::is_integral_v<T> T atomicExch(T* address, std::type_identity_t<T> value) {
  emulation::progress();
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <class T>
requires std::is_integral_v<T> T atomicOr(T* address, std::type_identity_t<T> value) {
  emulation::progress();
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
template <class T>
requires std::is_integral_v<T> T atomicAnd(T* address, std::type_identity_t<T> value) {
  emulation::progress();
  return __atomic_fetch_and(address, value, __ATOMIC_RELAXED);
}
template <class T>
requires std::is_integral_v<T> T atomicCAS(T* address, std::type_identity_t<T> expected,
                                           std::type_identity_t<T> value,
                                           emulation::Site at = emulation::Site::here()) {
  emulation::spin_point(at);
  const bool swapped = __atomic_compare_exchange_n(address, &expected, value, false,
                                                   __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  if (swapped) emulation::progress();
  return expected;
}
template <class T>
requires std::is_integral_v<T> T atomicMax(T* address, std::type_identity_t<T> value) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
  }
  return old;
}
template <class T>
requires std::is_integral_v<T> T atomicMin(T* address, std::type_identity_t<T> value) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (old > value && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
  }
  return old;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
constexpr int __popc(unsigned x) { return std::popcount(x); }
constexpr int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
constexpr int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
constexpr unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
constexpr int __float_as_int(float x) { return std::bit_cast<int>(x); }
constexpr float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
constexpr float __int_as_float(int x) { return std::bit_cast<float>(x); }
constexpr unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}

inline float rsqrtf(float x) { return 1.0F / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }

constexpr int min(int a, int b) { return b < a ? b : a; }
constexpr int max(int a, int b) { return a < b ? b : a; }
constexpr unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
constexpr unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
constexpr long min(long a, long b) { return b < a ? b : a; }
constexpr long max(long a, long b) { return a < b ? b : a; }
constexpr unsigned long min(unsigned long a, unsigned long b) { return b < a ? b : a; }
constexpr unsigned long max(unsigned long a, unsigned long b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
