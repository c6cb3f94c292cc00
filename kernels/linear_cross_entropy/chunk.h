#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/common/scratch.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/reduce/reduce.h"

// How linear_cross_entropy divides its scratch, for both devices.
namespace carousel::linear_cross_entropy {

/// g of a bf16 chunk is bf16 and lies beside the logits; else it takes their place.
template <class T>
inline constexpr bool kSeparateGradient = !std::is_same_v<T, Accumulator<T>>;

/// The parts of the scratch; a null pointer where a part is not needed.
template <class T>
struct Scratch {
  Accumulator<T>* logits = nullptr;  ///< [rows, V]
  T* d_logits = nullptr;             ///< [rows, V]; logits' memory unless kSeparateGradient
  Accumulator<T>* sums = nullptr;    ///< d_bias's, as ColumnSum wants them; CUDA only
};

template <class T>
Scratch<T> lay_out(ScratchCutter& cut, const LinearCrossEntropy<T>& op, const Device& device) {
  const std::int64_t rows = op.rows_per_chunk(device), vocab = op.weight.extent[0];
  Scratch<T> result{.logits = cut.take<Accumulator<T>>(rows * vocab)};
  if constexpr (kSeparateGradient<T>) {
    if (op.wants_gradient()) result.d_logits = cut.take<T>(rows * vocab);
  } else {
    if (op.wants_gradient()) result.d_logits = result.logits;
  }
  if (!is_cpu(device) && op.d_bias.present()) {
    result.sums = cut.take<Accumulator<T>>(column_sum_scratch(rows, vocab));
  }
  return result;
}

}  // namespace carousel::linear_cross_entropy
