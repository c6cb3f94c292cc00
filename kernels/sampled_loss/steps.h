#pragma once

#include <array>
#include <limits>
#include <type_traits>

#include "kernels/common/scratch.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/matmul/matmul.h"
#include "kernels/reduce/reduce.h"
#include "kernels/sampled_loss/sampled_loss.h"

// What both devices do: scratch, products, and what a candidate is worth.
namespace carousel::sampled_loss {

template <class T>
inline constexpr bool kSeparateGradient = !std::is_same_v<T, Accumulator<T>>;

template <class T>
struct Scratch {
  using A = Accumulator<T>;
  A* logits = nullptr;    ///< [N, S] z
  T* d_logits = nullptr;  ///< [N, S]; logits' memory unless kSeparateGradient
  A* offset = nullptr;    ///< [S] what z has beside the product
  A* d_target = nullptr;  ///< [N] the gradients of x
  A* sums = nullptr;      ///< ColumnSum's; CUDA only
};

template <class T>
constexpr std::int64_t drawn(const SampledLoss<T>& op) {
  return op.candidate.extent[0] - op.hidden.extent[0];
}
template <class T>
constexpr bool wants_gradient(const SampledLoss<T>& op) {
  return op.d_hidden.present() || op.d_row.present();
}

template <class T>
Scratch<T> lay_out(ScratchCutter& cut, const SampledLoss<T>& op, const Device& device) {
  using A = Accumulator<T>;
  const std::int64_t rows = op.hidden.extent[0], words = drawn(op);
  Scratch<T> result{.logits = cut.take<A>(rows * words)};
  if constexpr (kSeparateGradient<T>) {
    result.d_logits = cut.take<T>(rows * words);
  } else {
    result.d_logits = result.logits;
  }
  result.offset = cut.take<A>(words);
  result.d_target = cut.take<A>(rows);
  if (!is_cpu(device)) result.sums = cut.take<A>(column_sum_scratch(rows, words));
  return result;
}

template <class T>
constexpr bool is_known(const SampledLoss<T>& op, std::int64_t n) {
  return in_vocabulary(op.candidate(n), op.log_expected.extent[0]);
}

/// The log of how often candidate i is expected among the drawn words; NaN for what is no word.
template <class T>
constexpr Accumulator<T> log_expected(const SampledLoss<T>& op, std::int64_t i) {
  using A = Accumulator<T>;
  return is_known(op, i) ? op.log_expected(op.candidate(i)) : std::numeric_limits<A>::quiet_NaN();
}

/// What a row's loss is multiplied by.
template <class T>
constexpr Accumulator<T> gradient_scale(const SampledLoss<T>& op) {
  using A = Accumulator<T>;
  return op.denominator(0) == 0 ? A{0} : A{1} / op.denominator(0);
}

/// z of all rows and drawn words, but that accidental hits are still among them.
template <class T, class D>
void multiply_logits(const D& device, const SampledLoss<T>& op, const Scratch<T>& scratch) {
  using A = Accumulator<T>;
  const auto [rows, width] = op.hidden.extent;
  const std::int64_t words = drawn(op);
  Matmul<T, A>{.a = op.hidden,
               .b = {op.row.data + rows * width, {words, width}},
               .bias = {scratch.offset, {words}},
               .c = {scratch.logits, {rows, words}},
               .transpose_b = true,
               .tf32 = op.tf32}
      .run(device);
}

/// The gradients by way of the drawn words; those by way of the targets are still to be added.
template <class T, class D>
void multiply_gradients(const D& device, const SampledLoss<T>& op, const Scratch<T>& scratch) {
  using A = Accumulator<T>;
  const auto [rows, width] = op.hidden.extent;
  const std::int64_t words = drawn(op);
  const View<const T, 2> d_logits{scratch.d_logits, {rows, words}};
  if (op.d_hidden.present()) {
    Matmul<T>{.a = d_logits,
              .b = {op.row.data + rows * width, {words, width}},
              .c = op.d_hidden.view,
              .accumulate = op.d_hidden.accumulate,
              .tf32 = op.tf32}
        .run(device);
  }
  if (!op.d_row.present()) return;
  Matmul<T>{.a = d_logits,
            .b = op.hidden,
            .c = {op.d_row.data + rows * width, {words, width}},
            .transpose_a = true,
            .tf32 = op.tf32}
      .run(device);
  ColumnSum<T>{.x = d_logits,
               .sum = {{op.d_bias.data + rows, {words}}},
               .scratch = View<A, 1>{scratch.sums, {column_sum_scratch(rows, words)}}}
      .run(device);
}

}  // namespace carousel::sampled_loss
