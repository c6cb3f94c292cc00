#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/common/cuda/gemm.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"

namespace carousel {

/// A product of the op's storage type.
template <class T>
Gemm product_of(const auto& op) {
  if constexpr (std::is_same_v<T, bf16>) return {.type = GemmType::bf16};
  return {.type = op.tf32 ? GemmType::tf32 : GemmType::f32};
}

/// H, the units of a gate.
inline std::int64_t width_of(const auto& op) { return op.gates.extent[2] / op.cell->gates; }

inline std::int64_t most_gates(const CellInfo& cell) {
  int most = 0;
  for (int p = 0; p < cell.phases; ++p) most = std::max(most, cell.gates_of(p));
  return most;
}

/// Rows of a matrix of T, `stride` elements apart.
template <class T>
struct Rows {
  const T* data;
  std::int64_t stride;
};

/// The products with W_hh [G·H, P/heads]: one for each gate and head if there are heads, else one for
/// all gates that are asked for.
template <class T>
class RecurrentProducts {
 public:
  template <class Op>
  RecurrentProducts(const Cuda& on, const Op& op)
      : device_(on), plain_(product_of<T>(op)), weight_(op.weight_hh), units_(width_of(op)) {
    plain_.float_output = true;
    hidden_ = op.h.extent[2];
    if (present() && weight_.extent[1] > 0) heads_ = hidden_ / weight_.extent[1];
  }
  bool present() const { return weight_.present(); }

  /// to[m, gates·H] = by[m, P]·W_hhᵀ, for `gates` gates from `first` on.
  void forward(std::int64_t m, int first, int gates, const T* by, float* to) const {
    for_blocks(first, gates, [&](const Block& block) {
      Gemm p = plain_;
      p.transpose_b = true;
      p.m = m, p.n = block.rows, p.k = block.columns;
      p.a = by + block.column, p.a_stride = hidden_;
      p.b = weight(block);
      p.c = to + block.row - first * units_, p.c_stride = gates * units_;
      gemm(device_, p);
    });
  }

  /// to[m, P] = d[m, gates·H]·W_hh (+ to).
  void backward(std::int64_t m, int first, int gates, Rows<T> d, float* to, bool accumulate) const {
    for_blocks(first, gates, [&](const Block& block) {
      Gemm p = plain_;
      p.accumulate = accumulate || block.gate > first;
      p.m = m, p.n = block.columns, p.k = block.rows;
      p.a = d.data + block.row - first * units_, p.a_stride = d.stride;
      p.b = weight(block);
      p.c = to + block.column, p.c_stride = hidden_;
      gemm(device_, p);
    });
  }

  /// d_weight = dᵀ·by (+ d_weight) over `rows` rows of d[rows, gates·H] and by[rows, P].
  void gradient(std::int64_t rows, int first, int gates, Rows<T> d, const T* by,
                const Gradient<float, 2>& d_weight) const {
    for_blocks(first, gates, [&](const Block& block) {
      Gemm p = plain_;
      p.transpose_a = true, p.accumulate = d_weight.accumulate;
      p.m = block.rows, p.n = block.columns, p.k = rows;
      p.a = d.data + block.row - first * units_, p.a_stride = d.stride;
      p.b = by + block.column, p.b_stride = hidden_;
      p.c = d_weight.view.data + block.row * block.columns;
      gemm(device_, p);
    });
  }

 private:
  /// Rows of W_hh, and the columns of h with which they are multiplied.
  struct Block {
    std::int64_t gate, row, rows, column, columns;
  };
  const T* weight(const Block& block) const { return weight_.data + block.row * block.columns; }

  template <class F>
  void for_blocks(int first, int gates, const F& f) const {
    if (heads_ == 1) return f(Block{first, first * units_, gates * units_, 0, hidden_});
    const std::int64_t rows = units_ / heads_, columns = hidden_ / heads_;
    for (std::int64_t gate = first; gate < first + gates; ++gate) {
      for (std::int64_t head = 0; head < heads_; ++head) {
        f(Block{gate, gate * units_ + head * rows, rows, head * columns, columns});
      }
    }
  }

  const Cuda& device_;
  Gemm plain_;
  View<const T, 2> weight_;
  std::int64_t units_, hidden_ = 0, heads_ = 1;
};

}  // namespace carousel
