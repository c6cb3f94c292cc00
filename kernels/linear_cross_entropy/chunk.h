#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "kernels/common/journal.h"
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

/// Tells the journal where not all rows go at once.
inline void note_chunks(std::int64_t rows, std::int64_t rows_per_chunk) {
  Journal* const journal = Journal::mine();
  if (journal == nullptr || rows <= rows_per_chunk) return;
  journal->note("refused: all " + std::to_string(rows) + " rows of logits at once, which are too " +
                "many bytes; chunks of " + std::to_string(rows_per_chunk));
}

}  // namespace carousel::linear_cross_entropy
