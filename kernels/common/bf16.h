#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace carousel {

/// bfloat16 storage: the upper half of an IEEE-754 float. Arithmetic happens in float. Everything
/// is constexpr, so that host code and kernels share this one definition.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;

  /// Rounds to nearest, ties to even; NaN stays NaN (quiet).
  explicit constexpr bf16(float x) : bits(rounded(x)) {}
  explicit constexpr bf16(double x) : bf16(static_cast<float>(x)) {}

  /// Exact.
  constexpr operator float() const { return widened(bits); }

  /// The same conversions on plain bits. Compilers vectorise loops over them, but not loops over
  /// objects of this class.
  static constexpr float widened(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  static constexpr std::uint16_t rounded(float value) {
    const auto x = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t quiet = (x >> 16) | 0x40U, nearest = (x + 0x7FFFU + ((x >> 16) & 1U)) >> 16;
    return static_cast<std::uint16_t>((x & 0x7FFFFFFFU) > 0x7F800000U ? quiet : nearest);
  }
};
static_assert(std::is_trivially_copyable_v<bf16> && sizeof(bf16) == 2);

/// The type in which values stored as T are accumulated, and in which cell states, weight
/// gradients, biases, losses and optimiser state are kept: float, or double for double.
template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace carousel
