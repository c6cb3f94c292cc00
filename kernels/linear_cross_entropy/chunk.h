#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include "kernels/common/scratch.h"
#include "kernels/copy/copy.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/linear_cross_entropy/plan.h"
#include "kernels/matmul/matmul.h"
#include "kernels/reduce/reduce.h"

// What linear_cross_entropy does on both devices: its tiles, their scratch and products.
namespace carousel::linear_cross_entropy {

/// g of a bf16 chunk is bf16 and lies beside the logits; else it takes their place.
template <class T>
inline constexpr bool kSeparateGradient = !std::is_same_v<T, Accumulator<T>>;

/// What is known of a row from the tiles so far: log-sum-exp's parts, and what its loss wants.
template <class A>
struct RowState {
  A max, sum;
  A from, differences;  ///< Σ (from − x), where `from` is a logit of the row; for label smoothing
  A target;             ///< the target's logit; NaN until its tile

  /// Σ (target − x) over a whole row. `from` is near all logits, so that no digits cancel.
  constexpr A target_differences(std::int64_t vocab) const {
    return differences + static_cast<A>(vocab) * (target - from);
  }
};

/// The parts of the scratch; a null pointer where a part is not needed.
template <class T>
struct Scratch {
  using A = Accumulator<T>;
  A* logits = nullptr;           ///< [rows, words]
  T* d_logits = nullptr;         ///< [rows, words]; logits' memory unless kSeparateGradient
  RowState<A>* state = nullptr;  ///< [rows]
  A* d_hidden = nullptr;         ///< [rows, H], where d_hidden's type is too rough to add in
  A* sums = nullptr;             ///< d_bias's, as ColumnSum wants them; CUDA only
};

/// Rows [first_row, first_row + rows) and words [first_word, first_word + words) of the logits.
template <class T>
struct Chunk {
  std::int64_t first_row = 0, rows = 0, first_word = 0, words = 0;
  Scratch<T> scratch;
};

/// The first word of the last chunk.
template <class T>
constexpr std::int64_t last_word(const LinearCrossEntropy<T>& op, const LogitTile& tile) {
  return (op.weight.extent[0] - 1) / tile.words * tile.words;
}

template <class T>
Scratch<T> lay_out(ScratchCutter& cut, const LinearCrossEntropy<T>& op, const Device& device) {
  using A = Accumulator<T>;
  const LogitTile tile = op.tile(device);
  Scratch<T> result{.logits = cut.take<A>(tile.rows * tile.words)};
  if constexpr (kSeparateGradient<T>) {
    if (op.wants_gradient()) result.d_logits = cut.take<T>(tile.rows * tile.words);
  } else {
    if (op.wants_gradient()) result.d_logits = result.logits;
  }
  result.state = cut.take<RowState<A>>(tile.rows);
  if (work_of(op, device).sums_apart(tile)) {
    result.d_hidden = cut.take<A>(tile.rows * op.hidden.extent[1]);
  }
  if (!is_cpu(device) && op.d_bias.present()) {
    const std::int64_t rest = op.weight.extent[0] - last_word(op, tile);  // fewer may want more
    result.sums = cut.take<A>(
        std::max(column_sum_scratch(tile.rows, tile.words), column_sum_scratch(tile.rows, rest)));
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

/// The chunk's logits.
template <class T, class D>
void multiply_logits(const D& device, const LinearCrossEntropy<T>& op, const Chunk<T>& chunk) {
  using A = Accumulator<T>;
  const std::int64_t width = op.weight.extent[1];
  View<const A, 1> bias{};
  if (op.bias.present()) bias = {op.bias.data + chunk.first_word, {chunk.words}};
  Matmul<T, A>{.a = {op.hidden.data + chunk.first_row * width, {chunk.rows, width}},
               .b = {op.weight.data + chunk.first_word * width, {chunk.words, width}},
               .bias = bias,
               .c = {chunk.scratch.logits, {chunk.rows, chunk.words}},
               .transpose_b = true,
               .tf32 = op.tf32}
      .run(device);
}

/// d_hidden += g·weight, for all chunks of some rows from the last to the first. The sums are kept in
/// scratch if there is some, and rounded once.
template <class T, class D>
void add_d_hidden(const D& device, const LinearCrossEntropy<T>& op, const Chunk<T>& chunk) {
  using A = Accumulator<T>;
  const std::int64_t width = op.weight.extent[1], size = chunk.rows * width;
  const bool begins = chunk.first_word + chunk.words == op.weight.extent[0];
  const View<const T, 2> g{chunk.scratch.d_logits, {chunk.rows, chunk.words}},
      weight{op.weight.data + chunk.first_word * width, {chunk.words, width}};
  T* const d_hidden = op.d_hidden.view.data + chunk.first_row * width;
  A* const sums = chunk.scratch.d_hidden;
  const bool accumulate = op.d_hidden.accumulate || !begins;
  if (sums == nullptr) {
    return Matmul<T>{.a = g,
                     .b = weight,
                     .c = {d_hidden, {chunk.rows, width}},
                     .accumulate = accumulate,
                     .tf32 = op.tf32}
        .run(device);
  }
  if constexpr (kSeparateGradient<T>) {
    if (begins && accumulate) {
      Cast<T, A>{.from = {d_hidden, {size}}, .to = {sums, {size}}}.run(device);
    }
    Matmul<T, A>{.a = g, .b = weight, .c = {sums, {chunk.rows, width}}, .accumulate = accumulate}
        .run(device);
    if (chunk.first_word == 0) {
      Cast<A, T>{.from = {sums, {size}}, .to = {d_hidden, {size}}}.run(device);
    }
  }
}

/// What a chunk's g adds to the gradients.
template <class T, class D>
void add_gradients(const D& device, const LinearCrossEntropy<T>& op, const Chunk<T>& chunk) {
  using A = Accumulator<T>;
  const std::int64_t width = op.weight.extent[1];
  const View<const T, 2> g{chunk.scratch.d_logits, {chunk.rows, chunk.words}};
  if (op.d_hidden.present()) add_d_hidden(device, op, chunk);
  if (op.d_weight.present()) {
    Matmul<T, A>{.a = g,
                 .b = {op.hidden.data + chunk.first_row * width, {chunk.rows, width}},
                 .c = {op.d_weight.view.data + chunk.first_word * width, {chunk.words, width}},
                 .transpose_a = true,
                 .accumulate = op.d_weight.accumulate || chunk.first_row != 0,
                 .tf32 = op.tf32}
        .run(device);
  }
  if (op.d_bias.present()) {
    ColumnSum<T>{.x = g,
                 .sum = {{op.d_bias.view.data + chunk.first_word, {chunk.words}},
                         op.d_bias.accumulate || chunk.first_row != 0},
                 .scratch = {chunk.scratch.sums, {column_sum_scratch(chunk.rows, chunk.words)}}}
        .run(device);
  }
}

/// Runs all tiles. rows.add(chunk) takes a chunk's logits into the rows' states, and writes the
/// losses with the last words; rows.differentiate(chunk) turns the logits into g.
template <class T, class D, class Rows>
void run_tiles(const D& device, const LinearCrossEntropy<T>& op, const Scratch<T>& scratch,
               const Rows& rows) {
  const auto [count, vocab] = std::array{op.hidden.extent[0], op.weight.extent[0]};
  const LogitTile tile = op.tile(device);
  const std::int64_t last = last_word(op, tile);
  std::int64_t first_row = 0;
  do {  // once even if there are no rows: the empty products write what must be written
    const auto chunk = [&](std::int64_t first_word) {
      return Chunk<T>{.first_row = first_row,
                      .rows = std::min(tile.rows, count - first_row),
                      .first_word = first_word,
                      .words = std::min(tile.words, vocab - first_word),
                      .scratch = scratch};
    };
    for (std::int64_t word = 0; word < vocab; word += tile.words) {
      multiply_logits(device, op, chunk(word));
      rows.add(chunk(word));
    }
    for (std::int64_t word = last; op.wants_gradient() && word >= 0; word -= tile.words) {
      if (word != last) multiply_logits(device, op, chunk(word));
      rows.differentiate(chunk(word));
      add_gradients(device, op, chunk(word));
    }
    first_row += tile.rows;
  } while (first_row < count);
}

}  // namespace carousel::linear_cross_entropy
