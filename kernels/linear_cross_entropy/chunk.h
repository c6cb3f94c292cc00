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

/// What the sum of weighted losses is divided by.
template <class T>
constexpr double denominator(const LinearCrossEntropy<T>& op, std::int32_t count) {
  return op.denominator.present() ? static_cast<double>(op.denominator(0)) : count;
}

/// What the gradient of every row's loss is multiplied by, its row weight apart.
template <class T>
constexpr Accumulator<T> gradient_scale(const LinearCrossEntropy<T>& op, std::int32_t count) {
  using A = Accumulator<T>;
  const auto divisor = static_cast<A>(denominator(op, count));
  return divisor == 0 ? A{0} : static_cast<A>(op.term_weight) * (A{1} / divisor);
}

/// A row's share of the sum of losses. Not the bare product, in which 0·inf is NaN.
template <class T>
constexpr double weighted_loss(const LinearCrossEntropy<T>& op, std::int64_t n) {
  const auto loss = static_cast<double>(op.loss(n));
  if (!op.row_weight.present()) return loss;
  const auto weight = static_cast<double>(op.row_weight(n));
  return weight == 0 && loss == loss ? 0.0 : weight * loss;
}

/// Tells the journal where not all rows go at once.
inline void note_chunks(std::int64_t rows, std::int64_t rows_per_chunk) {
  Journal* const journal = Journal::mine();
  if (journal == nullptr || rows <= rows_per_chunk) return;
  journal->note("refused: all " + std::to_string(rows) + " rows of logits at once, which are too " +
                "many bytes; chunks of " + std::to_string(rows_per_chunk));
}

}  // namespace carousel::linear_cross_entropy
