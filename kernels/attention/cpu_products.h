#pragma once

#include "kernels/attention/amx.h"
#include "kernels/attention/cpu_tile.h"

// The products of tiles, in two ways. Each number of a product is one sum in order of the depth, so that
// it does not matter where in a tile a row lies.
namespace carousel::attention_cpu {

/// A matrix of factors: number (i, k) at data[i·row + k·column].
template <class A>
struct Factors {
  const A* data;
  std::int64_t row, column;
};

inline constexpr int kVectorRows = 8;  ///< whose products with a panel are made at once

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

/// c (+)= a·b of kVectorRows rows and kVectors·kLanes columns, the sums in registers.
template <int kVectors, class A>
void multiply_block(const Factors<A>& a, const Matrix<const A>& b, std::int64_t depth,
                    const Matrix<A>& c, bool accumulate) {
  Vector<A> sum[kVectorRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectorRows; ++i) {
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
    for (int i = 0; i < kVectorRows; ++i) {
      const A f = factor[i * a.row];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sum[i][j] += f * x[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectorRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) store(sum[i][j], c.row(i) + j * kLanes);
  }
}

/// c += a·b of kVectorRows rows and `columns`, a multiple of kLanes.
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

/// Products of floats or doubles by vectors, on every processor.
template <class A>
struct VectorProducts {
  using Number = A;                                   ///< that factors are copied to
  using Packed = A;                                   ///< an element of a right factor
  static constexpr std::int64_t kPack = 1;            ///< numbers of one, along the depth
  static constexpr std::int64_t kRows = kVectorRows;  ///< of a product
  static constexpr std::int64_t kUnit = kLanes;       ///< divides the columns of copied rows
  static constexpr std::int64_t kDepth = 1;           ///< divides the depth of a product

  /// c = a·panel: kRows rows, kPanel columns.
  static void multiply(const Factors<A>& a, const A* panel, std::int64_t depth,
                       const Matrix<A>& c) {
    multiply_block<2, A>(a, {panel, kPanel}, depth, c, false);
  }
  /// c += a·b of kRows rows and `columns`, a multiple of kUnit.
  static void add(const Factors<A>& a, const Matrix<const A>& b, std::int64_t depth,
                  std::int64_t columns, const Matrix<A>& c) {
    add_product<A>(a, b, depth, columns, c);
  }
  /// Rows as right factors: panels of their transpose, and with the depth down the rows.
  static void pack_columns(const Matrix<A>& rows, std::int64_t count, A* to) {
    transpose<A>({rows.data, rows.stride}, count, rows.stride, to);
  }
  static const A* pack_rows(const Matrix<A>& rows, std::int64_t, Numbers<A>&) { return rows.data; }
  /// kRows rows of results as a left factor, and as many columns, of the rows begin ≤ i < end.
  static Factors<A> left(const Matrix<A>& c, std::int64_t) { return {c.data, c.stride, 1}; }
  static Factors<A> left_columns(const Matrix<A>& c, std::int64_t begin, std::int64_t) {
    return {c.row(begin), 1, c.stride};
  }
};

/// The upper halves of floats, rounded as bf16 is, in the low halves of words.
[[gnu::always_inline]] inline Vector<std::uint32_t> rounded(const Vector<float>& x) {
  Vector<std::uint32_t> bits;
  std::memcpy(&bits, &x, sizeof bits);
  const Vector<std::uint32_t> quiet = (bits >> 16) | 0x40U,
                              nearest = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  return (bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : nearest;
}

/// The same of bf16 by AMX: results that become factors are rounded.
class TileProducts {
 public:
  using Number = bf16;
  using Packed = std::uint32_t;
  static constexpr std::int64_t kPack = 2, kRows = amx::kBlock, kUnit = amx::kDepth,
                                kDepth = amx::kDepth;

  static void multiply(const Factors<bf16>& a, const Packed* panel, std::int64_t depth,
                       const Matrix<float>& c) {
    amx::multiply(a.data, a.row, panel, kPanel, depth, c.data, c.stride, false);
  }
  static void add(const Factors<bf16>& a, const Matrix<const Packed>& b, std::int64_t depth,
                  std::int64_t columns, const Matrix<float>& c) {
    for (std::int64_t j = 0; j < columns; j += kPanel) {
      amx::multiply(a.data, a.row, b.data + j, b.stride, depth, c.data + j, c.stride, true);
    }
  }
  static void pack_columns(const Matrix<bf16>& rows, std::int64_t count, Packed* to) {
    transpose<Packed>({reinterpret_cast<const Packed*>(rows.data), rows.stride / kPack}, count,
                      rows.stride / kPack, to);
  }
  static const Packed* pack_rows(const Matrix<bf16>& rows, std::int64_t count,
                                 Numbers<Packed>& memory) {
    Packed* const to = memory.take(count / kPack * rows.stride);
    for (std::int64_t i = 0; i < count; i += kPack) {
      const bf16 *const low = rows.row(i), *const high = rows.row(i + 1);
      Packed* const row = to + i / kPack * rows.stride;
#pragma GCC ivdep
      for (std::int64_t j = 0; j < rows.stride; ++j) {
        row[j] = low[j].bits | static_cast<Packed>(high[j].bits) << 16;
      }
    }
    return to;
  }
  Factors<bf16> left(const Matrix<float>& c, std::int64_t columns) {
    bf16* const to = left_.take(kRows * columns);
    for (std::int64_t i = 0; i < kRows; ++i) {
      for (std::int64_t j = 0; j < columns; j += kLanes) {
        const auto halves = __builtin_convertvector(rounded(load(c.row(i) + j)), Halves);
        std::memcpy(to + i * columns + j, &halves, sizeof halves);
      }
    }
    return {to, columns, 1};
  }
  Factors<bf16> left_columns(const Matrix<float>& c, std::int64_t begin, std::int64_t end) {
    Packed* const pairs = pairs_.take((end - begin) / kPack * kRows);
    for (std::int64_t i = begin; i < end; i += kPack) {
      for (std::int64_t j = 0; j < kRows; j += kLanes) {
        store<Packed>(rounded(load(c.row(i) + j)) | rounded(load(c.row(i + 1) + j)) << 16,
                      pairs + (i - begin) / kPack * kRows + j);
      }
    }
    static_assert(kRows == kPanel);
    Packed* const to = columns_.take(kRows * kPanel);
    transpose<Packed>({pairs, kRows}, (end - begin) / kPack, kRows, to);
    return {reinterpret_cast<const bf16*>(to), kPanel * kPack, 1};
  }

 private:
  typedef std::uint16_t Halves __attribute__((vector_size(kLanes * 2)));
  amx::Registers registers_;
  Numbers<bf16> left_;
  Numbers<Packed> pairs_, columns_;
};

}  // namespace carousel::attention_cpu
