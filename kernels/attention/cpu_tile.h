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

// Tiles of a head on the CPU: what they are copied to, and what is asked of them.
namespace carousel::attention_cpu {

inline constexpr std::int64_t kPanel = 32;  ///< columns of a product

/// Rows of numbers.
template <class A>
struct Matrix {
  A* data;
  std::int64_t stride;
  A* row(std::int64_t i) const { return data + i * stride; }
};
/// One head of one row of the batch.
template <class T>
struct HeadSteps {
  const T* head;
  std::int64_t step, width;  ///< elements from step to step; D

  HeadSteps(const HeadRows<const T>& heads, std::int64_t b, std::int64_t a, std::int64_t head_width)
      : head(heads.head(b, a, head_width)), step(heads.stride()), width(head_width) {}

  /// Steps first … first + count − 1 as rows of `to`: zeros behind D and in the rows from there to
  /// `padded`.
  template <class Number>
  void copy(std::int64_t first, std::int64_t count, std::int64_t padded,
            const Matrix<Number>& to) const {
    for (std::int64_t t = 0; t < count; ++t) {
      const T* const from = head + (first + t) * step;
      Number* const row = to.row(t);
      if constexpr (std::is_same_v<T, Number>) {
        std::copy_n(from, width, row);
      } else {
#pragma GCC ivdep
        for (std::int64_t d = 0; d < width; ++d) row[d] = row::widened<Number>(from[d]);
      }
      std::fill(row + width, row + to.stride, Number{});
    }
    std::fill(to.row(count), to.row(padded), Number{});
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
  /// The columns that queries t ≤ t' < last need of a tile: whole panels.
  Columns of_rows(std::int64_t t, std::int64_t last, const Columns& tile) const {
    const std::int64_t begin_column = std::max(first(t), tile.begin),
                       end_column = std::min(end(last - 1), tile.end);
    if (begin_column >= end_column) return {0, 0};
    return {rounded_down(begin_column, kPanel), rounded_up(end_column, kPanel)};
  }
};

/// Scores row[s] of c.begin ≤ s < c.end without their scale become those with it and the bias. Not inlined,
/// so that the loops around it are those of attention without a bias.
template <class A>
[[gnu::noinline]] void add_bias(const A* bias, const Columns& c, A scale, A* row) {
#pragma GCC ivdep
  for (std::int64_t s = c.begin; s < c.end; ++s) row[s] = row[s] * scale + bias[s];
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
