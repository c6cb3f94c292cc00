#pragma once

#include <math.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

#include "tests/emulation/language/collectives.h"

// Atomics are relaxed, as CUDA's are: they order no other access.
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
inline float sinpif(float x) {
  return static_cast<float>(std::sin(std::numbers::pi * static_cast<double>(x)));
}
inline float cospif(float x) {
  return static_cast<float>(std::cos(std::numbers::pi * static_cast<double>(x)));
}
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
