#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/attention/cpu_vector.h"
#include "kernels/attention/heads.h"
#include "kernels/common/bf16.h"
#include "kernels/common/cpu_random.h"
#include "kernels/cross_entropy/row.h"
#include "kernels/dropout/dropout.h"

// Tiles of a head on the CPU: what they are copied to, and their products. Each number of a product is
// one sum in order of the depth, so that it does not matter where in a tile a row lies.
namespace carousel::attention_cpu {

inline constexpr int kRows = 8;             ///< whose products with a panel are made at once
inline constexpr std::int64_t kPanel = 32;  ///< columns of such a product

/// A matrix of factors: number (i, k) at data[i·row + k·column].
template <class A>
struct Factors {
  const A* data;
  std::int64_t row, column;
  Factors at(std::int64_t i, std::int64_t k) const {
    return {data + i * row + k * column, row, column};
  }
};
/// Rows of numbers.
template <class A>
struct Matrix {
  A* data;
  std::int64_t stride;
  A* row(std::int64_t i) const { return data + i * stride; }
};

/// c (+)= a·b of kRows rows and kVectors·kLanes columns, the sums in registers.
template <int kVectors, class A>
void multiply_block(const Factors<A>& a, const Matrix<const A>& b, std::int64_t depth,
                    const Matrix<A>& c, bool accumulate) {
  Vector<A> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      sum[i][j] = accumulate ? load(c.row(i) + j * kLanes) : Vector<A>{};
    }
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vector<A> x[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) x[j] = load(b.row(k) + j * kLanes);
    const A* const factor = a.data + k * a.column;
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const A f = factor[i * a.row];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sum[i][j] += f * x[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) store(sum[i][j], c.row(i) + j * kLanes);
  }
}

/// c += a·b of kRows rows and `columns`, a multiple of kLanes.
template <class A>
void add_product(const Factors<A>& a, const Matrix<const A>& b, std::int64_t depth,
                 std::int64_t columns, const Matrix<A>& c) {
  std::int64_t j = 0;
  for (; j + kPanel <= columns; j += kPanel) {
    multiply_block<2, A>(a, {b.data + j, b.stride}, depth, {c.data + j, c.stride}, true);
  }
  if (j < columns) {
    multiply_block<1, A>(a, {b.data + j, b.stride}, depth, {c.data + j, c.stride}, true);
  }
}

/// One head of one row of the batch.
template <class T>
struct HeadSteps {
  const T* head;
  std::int64_t step, width;  ///< elements from step to step; D

  HeadSteps(const HeadRows<const T>& heads, std::int64_t b, std::int64_t a, std::int64_t head_width)
      : head(heads.head(b, a, head_width)), step(heads.stride()), width(head_width) {}

  /// Steps first … first + count − 1, times `factor`, as rows of `to`: zeros behind D and in the rows
  /// from there to `padded`.
  template <class A>
  void copy(std::int64_t first, std::int64_t count, std::int64_t padded, A factor,
            const Matrix<A>& to) const {
    for (std::int64_t t = 0; t < count; ++t) {
      const T* const from = head + (first + t) * step;
      A* const row = to.row(t);
#pragma GCC ivdep
      for (std::int64_t d = 0; d < width; ++d) row[d] = factor * row::widened<A>(from[d]);
      std::fill(row + width, row + to.stride, A{0});
    }
    std::fill(to.row(count), to.row(padded), A{0});
  }
};

/// to[d] = factor·from[d], or that added to it.
template <class A, class T>
void write(const A* from, A factor, std::int64_t width, bool accumulate, T* to) {
#pragma GCC ivdep
  for (std::int64_t d = 0; d < width; ++d) {
    const A value = factor * from[d];
    row::narrow(accumulate ? value + row::widened<A>(to[d]) : value, to[d]);
  }
}

/// Columns begin ≤ s < end; none if begin ≥ end.
struct Columns {
  std::int64_t begin, end;
  bool empty() const { return begin >= end; }
};

/// The keys that a query at position t sees.
struct Keys {
  const AttentionRule& rule;
  std::int64_t count;  ///< of the row

  std::int64_t first(std::int64_t t) const { return rule.first_key(t); }
  std::int64_t end(std::int64_t t) const { return rule.end_key(t, count); }
  /// The columns that queries t … t + kRows − 1, below `last`, need of a tile: whole panels.
  Columns of_rows(std::int64_t t, std::int64_t last, const Columns& tile) const {
    const std::int64_t begin_column = std::max(first(t), tile.begin),
                       end_column = std::min(end(std::min(t + kRows, last) - 1), tile.end);
    if (begin_column >= end_column) return {0, 0};
    return {rounded_down(begin_column, kPanel), rounded_up(end_column, kPanel)};
  }
};

/// The rows h lanes apart of two vectors, their halves of 2h lanes exchanged.
template <int kHalf, class A>
void exchange(Vector<A>& x, Vector<A>& y) {
  constexpr auto low = [](int l) { return (l & kHalf) == 0 ? l : l - kHalf + kLanes; };
  constexpr auto high = [](int l) { return (l & kHalf) == 0 ? l + kHalf : l + kLanes; };
  const Vector<A> a = x, b = y;
  x = __builtin_shufflevector(a, b, low(0), low(1), low(2), low(3), low(4), low(5), low(6), low(7),
                              low(8), low(9), low(10), low(11), low(12), low(13), low(14), low(15));
  y = __builtin_shufflevector(a, b, high(0), high(1), high(2), high(3), high(4), high(5), high(6),
                              high(7), high(8), high(9), high(10), high(11), high(12), high(13),
                              high(14), high(15));
}
template <int kHalf, class A>
void exchange_all(Vector<A> (&v)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kHalf) == 0) exchange<kHalf, A>(v[i], v[i + kHalf]);
  }
}

/// Rows of `from`, whose strides and counts are multiples of kLanes, as the columns of panels: number
/// (s, d) at to[(s / kPanel)·depth·kPanel + d·kPanel + s mod kPanel].
template <class A>
void transpose(const Matrix<const A>& from, std::int64_t rows, std::int64_t depth, A* to) {
  for (std::int64_t s = 0; s < rows; s += kLanes) {
    A* const panel = to + s / kPanel * depth * kPanel + s % kPanel;
    for (std::int64_t d = 0; d < depth; d += kLanes) {
      Vector<A> block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) block[i] = load(from.row(s + i) + d);
      exchange_all<8, A>(block);
      exchange_all<4, A>(block);
      exchange_all<2, A>(block);
      exchange_all<1, A>(block);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(block[i], panel + (d + i) * kPanel);
    }
  }
}

/// What weights are multiplied by where some are dropped.
struct WeightMask {
  std::array<std::uint32_t, 2> key;
  std::int64_t step;
  std::int32_t threshold;
  float scale;

  template <class Op>
  explicit WeightMask(const Op& op)
      : key(op.random.key()),
        step(op.drop_probability > 0 ? *op.random.step.data : 0),
        threshold(uniform_threshold(op.drop_probability)),
        scale(dropout_scale(op.drop_probability)) {}

  /// Of the elements first … first + count − 1, count ≤ 4·kBlocks − 3.
  static constexpr std::size_t kBlocks = 16;
  static constexpr std::int64_t kMost = 4 * kBlocks - 3;
  template <class A>
  void draw(std::int64_t first, std::int64_t count, A* to) const {
    std::array<std::array<std::uint32_t, kBlocks>, 4> words;
    draw_lanes(key, static_cast<std::uint64_t>(first) / 4, step, words);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t n = first % 4 + i;
      const std::uint32_t word =
          words[static_cast<std::size_t>(n % 4)][static_cast<std::size_t>(n / 4)];
      to[i] = static_cast<std::int32_t>(word >> 8) >= threshold ? static_cast<A>(scale) : A{0};
    }
  }
  /// row[s] *= the factor of element first + s, for begin ≤ s < end.
  template <class A>
  void apply(std::int64_t first, std::int64_t begin, std::int64_t end, A* row) const {
    A factor[kMost];
    for (std::int64_t s = begin; s < end; s += kMost) {
      const std::int64_t count = std::min(kMost, end - s);
      draw(first + s, count, factor);
      for (std::int64_t i = 0; i < count; ++i) row[s + i] *= factor[i];
    }
  }
};

}  // namespace carousel::attention_cpu
