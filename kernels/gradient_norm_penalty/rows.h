#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/common/scratch.h"
#include "kernels/gradient_norm_penalty/gradient_norm_penalty.h"
#include "kernels/matmul/matmul.h"

namespace carousel {

/// What one pair of steps gives.
struct GradientNormTerm {
  double square = 0;       ///< (ratio − 1)²
  double coefficient = 0;  ///< the square's gradient is 2·coefficient·(v ∘ φ'²), v = δ·W_hh
  bool counts = false;

  constexpr GradientNormTerm() = default;
  /// Of ‖δ‖ and ‖v ∘ φ'‖.
  constexpr GradientNormTerm(double of_delta, double of_product) {
    if (of_delta < 0x1p-126) return;  // written so that NaN counts
    const double ratio = of_product / of_delta;
    counts = true;
    square = (ratio - 1) * (ratio - 1);
    if (of_product != 0) coefficient = (ratio - 1) / (of_product * of_delta);
  }
};

/// The op's rows and scratch, on either device. Row n = t·B + b is the pair of the steps t and t + 1
/// of row b. Private to the op.
template <class T>
struct GradientNormRows {
  using A = Accumulator<T>;
  GradientNormPenalty<T> op;
  std::int64_t rows, batch, width;
  A* product;            ///< [rows, H] v
  T* factor;             ///< [rows, H] of the second product; of float, the same memory
  double* square;        ///< [rows] (ratio − 1)²
  double* coefficient;   ///< [rows]
  std::int32_t* counts;  ///< [rows] 0 or 1
  double* scale;         ///< [1] 2·weight / the number of pairs that count

  GradientNormRows(ScratchCutter& cut, const GradientNormPenalty<T>& of)
      : op(of),
        rows(of.h.extent[0] < 2 ? 0 : (of.h.extent[0] - 1) * of.h.extent[1]),
        batch(of.h.extent[1]),
        width(of.h.extent[2]),
        product(cut.take<A>(rows * width)),
        square(cut.take<double>(rows)),
        coefficient(cut.take<double>(rows)),
        counts(cut.take<std::int32_t>(rows)),
        scale(cut.take<double>(1)) {
    if constexpr (std::is_same_v<T, A>) {
      factor = product;
    } else {
      factor = cut.take<T>(rows * width);
    }
  }

  /// δ of a pair's second step, and h of its first.
  constexpr const T* delta(std::int64_t n) const {
    return op.delta.data + (rows == 0 ? 0 : (n + batch) * width);
  }
  constexpr const T* h(std::int64_t n) const { return op.h.data + n * width; }
  constexpr bool joined(std::int64_t n) const { return op.steps().joined(n / batch, n % batch); }

  Matmul<T, A> first_product() const {
    return {.a = {delta(0), {rows, width}},
            .b = op.weight_hh,
            .c = {product, {rows, width}},
            .tf32 = op.tf32};
  }
  Matmul<T, A> second_product() const {
    return {.a = {delta(0), {rows, width}},
            .b = {factor, {rows, width}},
            .c = op.d_weight_hh.view,
            .transpose_a = true,
            .accumulate = op.d_weight_hh.accumulate,
            .tf32 = op.tf32};
  }
};

}  // namespace carousel
