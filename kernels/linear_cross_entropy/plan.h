#pragma once

#include <cstdint>

#include "kernels/common/journal.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

// Into which tiles linear_cross_entropy cuts its logits [N, V], and what that costs. There are two
// ways. Tiles of all V words need three products, but each of these tiles reads the whole weight twice
// and adds to the whole d_weight. Tiles of some words compute the logits twice, a fourth product, for
// a row's log-sum-exp must be known before its first gradient. But if a tile has all rows, the weight
// is read three times in all, and d_weight written once.
namespace carousel::linear_cross_entropy {

/// What the cost depends on.
struct Work {
  std::int64_t rows = 0, vocab = 0, width = 0;
  std::int64_t element_bytes = 4;      ///< of hidden and weight
  std::int64_t accumulator_bytes = 4;  ///< of logits and d_weight
  std::int64_t logit_bytes = 4;        ///< of scratch: a logit and, if apart, its gradient
  bool widens = false;                 ///< products copy bf16 operands as float: multiplies_bf16()
  bool gradients = true, d_hidden = true, d_weight = true;  ///< the first: any of them, d_bias too

  /// Whether d_hidden, which tiles of words add to, needs sums of more digits in scratch.
  bool sums_apart(const LogitTile& tile) const {
    return d_hidden && tile.words < vocab && element_bytes < accumulator_bytes;
  }
};

/// How a machine's rates relate. Constants, so that the same tiles, and bits, come every time.
struct Rates {
  double flops_per_byte = 1;         ///< operations of a product in the time of a byte of memory
  double flops_per_logit = 1;        ///< the same, of one visit of a logit
  double flops_per_row = 0;          ///< and of a row, however short
  std::int64_t cache_bytes = 0;      ///< logits within it cost no memory traffic
  std::int64_t row_cache_bytes = 0;  ///< what a tile of whole rows is kept to, if that pays
  bool overlaps = false;             ///< a product hides the traffic that takes less time than it
};

/// The time of the op, relative to that of its products alone, each in one piece and with all logits
/// in memory. N, V and H are not 0.
double cost(const Work& work, const LogitTile& tile, const Rates& rates);

/// Scratch of a tile, but for alignment and the sums of d_bias, and the copies that products make.
std::int64_t tile_bytes(const Work& work, const LogitTile& tile);

/// The choice, and the best tile of the other way.
struct Plan {
  LogitTile tile{}, refused{};  ///< refused.rows is 0 if the other way was not considered
  double cost = 1, refused_cost = 1;
};

/// The cheapest tile within the limit of scratch memory.
Plan plan(const Work& work, const Rates& rates);

template <class T>
Work work_of(const LinearCrossEntropy<T>& op, const Device& device);
template <class T>
Rates rates_of(const LinearCrossEntropy<T>& op, const Device& device);

/// The plan for an op, whose chunk_rows and chunk_words come first.
template <class T>
Plan plan(const LinearCrossEntropy<T>& op, const Device& device);

/// Tells the journal the plan, where not all logits are there at once.
void note_plan(const Work& work, const Plan& plan);
template <class T>
void note_plan(const LinearCrossEntropy<T>& op, const Device& device) {
  if (Journal::mine() != nullptr) note_plan(work_of(op, device), plan(op, device));
}

}  // namespace carousel::linear_cross_entropy
