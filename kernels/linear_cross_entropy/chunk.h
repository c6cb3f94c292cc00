#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

// How linear_cross_entropy divides its scratch, for both devices.
namespace carousel::linear_cross_entropy {

/// g of a bf16 chunk is bf16 and lies beside the logits; else it takes their place.
template <class T>
inline constexpr bool kSeparateGradient = !std::is_same_v<T, Accumulator<T>>;

/// d_bias on CUDA: a chunk's rows are summed in slices by different blocks, and then the slices,
/// so that a long chunk of a small vocabulary keeps more than a few threads busy.
constexpr std::int64_t slices(std::int64_t rows) {
  return std::clamp<std::int64_t>((rows + 255) / 256, 1, 64);
}

/// The parts of the scratch; a null pointer where a part is not needed.
template <class T>
struct Scratch {
  Accumulator<T>* logits = nullptr;       ///< [rows, V]
  T* d_logits = nullptr;                  ///< [rows, V]; logits' memory unless kSeparateGradient
  Accumulator<T>* bias_slices = nullptr;  ///< [slices(rows), V]; CUDA only
  std::size_t bytes = 0;
};

/// Divides memory from `base` on, which may be null to learn the size alone.
template <class T>
Scratch<T> divide(const LinearCrossEntropy<T>& op, std::int64_t rows, bool cuda, std::byte* base) {
  constexpr std::size_t kAlignment = 256;
  const std::int64_t vocab = op.weight.extent[0];
  Scratch<T> result;
  const auto take = [&]<class X>(X*& part, std::int64_t part_rows) {
    if (base != nullptr) part = reinterpret_cast<X*>(base + result.bytes);
    const auto bytes = static_cast<std::size_t>(part_rows * vocab) * sizeof(X);
    result.bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  };
  if (rows == 0) return result;
  take(result.logits, rows);
  if (op.wants_gradient()) {
    if constexpr (kSeparateGradient<T>) {
      take(result.d_logits, rows);
    } else {
      result.d_logits = result.logits;
    }
  }
  if (cuda && op.d_bias.present() && slices(rows) > 1) take(result.bias_slices, slices(rows));
  return result;
}

/// The scratch of `op` on `device`; ShapeError if op.scratch is too small.
template <class T>
Scratch<T> scratch(const LinearCrossEntropy<T>& op, const Device& device);

}  // namespace carousel::linear_cross_entropy
