#pragma once

#include <cstdint>
#include <span>

#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// How many partial sums one gradient's part of a norm is made of, at most.
inline constexpr std::int64_t kGlobalNormPartials = 1024;

/// A row-sparse gradient as EmbeddingRowBackward gives it.
template <class T>
struct RowSparseGradient {
  View<const T, 2> values;                  ///< [C, E] the first row_count[0] rows are used
  View<const std::int32_t, 1> row_count{};  ///< [1]
};

/// The norm of all gradients of a model, by how much clipping scales them, and whether this step
/// may be taken at all:
///
///     norm           = √ (Σ_n gradient[n]² + Σ row_sparse²)
///     gradient_scale = min(1, clip_norm / (norm + 10⁻⁶))        1 if clip_norm is 0
///     finite         = 1 if norm and every loss are finite, otherwise 0
///
/// The host does not wait: the optimiser ops read the last two on the device. T is float, or double
/// on the CPU.
///
/// Values   gradients may be anything. Squares are summed in double, so that the norm is right
///          wherever it is a float, for |gradient| from the smallest subnormal to the largest
///          float; beyond that it is +inf. A NaN or infinity anywhere makes norm NaN or +inf,
///          gradient_scale NaN or 0 (when clipping), and finite 0.
/// Errors   ShapeError if a view has the wrong extent; ConfigError if clip_norm is negative or not
///          finite, or for double on CUDA. N == 0 has norm 0.
/// Accuracy within kGlobalNormTolerance of the exact value: a square is exact in double, the sum is
///          off by at most N·2⁻⁵³ of itself. Repeats bit for bit: the partial sums are those of
///          fixed stretches, whatever the number of threads or the card, in a fixed order.
/// Memory   reads the gradients once; of row-sparse ones the rows in use.
/// Source   Pascanu, Mikolov & Bengio 2013, ICML 28(3):1310, algorithm 1; the 10⁻⁶ is that of
///          PyTorch's clip_grad_norm_.
template <class T>
struct GlobalNorm {
  View<const T, 1> gradient;                           ///< [N]
  std::span<const RowSparseGradient<T>> row_sparse{};  ///< host memory; may be empty
  View<const T, 1> loss{};                             ///< [K] may be absent: not looked at
  double clip_norm = 0;                                ///< 0: no clipping
  bool keep_failure = false;     ///< finite stays 0 if it is 0: no step is taken after a bad one
  View<double, 1> scratch;       ///< [≥ kGlobalNormPartials · (1 + row_sparse.size())]
  View<T, 1> norm;               ///< [1] out: before clipping
  View<T, 1> gradient_scale;     ///< [1] out
  View<std::int32_t, 1> finite;  ///< [1] out; in too if keep_failure
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  /// One gradient of the norm, cut into stretches of which each gives a partial sum. How they are
  /// cut follows from the memory there is for it, not from the rows in use.
  struct Part {
    const T* values;
    std::int64_t size, width;
    const std::int32_t* row_count;  ///< null: all of it is used
    double* partial;                ///< [partials()] out

    /// Elements per partial sum: a multiple of 8, so that every stretch begins at a full vector.
    constexpr std::int64_t stretch() const {
      constexpr std::int64_t kLeast = 4096;
      const std::int64_t even = (size + kGlobalNormPartials - 1) / kGlobalNormPartials;
      return even < kLeast ? kLeast : (even + 7) / 8 * 8;
    }
    constexpr std::int64_t partials() const { return (size + stretch() - 1) / stretch(); }
    constexpr std::int64_t used() const {
      return row_count == nullptr ? size : row_count[0] * width;
    }
  };

  /// Calls f with every Part and returns the number of partial sums, which lie one after another
  /// from scratch(0) on.
  template <class F>
  std::int64_t for_each_part(const F& f) const {
    Part part{gradient.data, gradient.extent[0], gradient.extent[0], nullptr, scratch.data};
    f(part);
    for (const RowSparseGradient<T>& each : row_sparse) {
      part = {each.values.data, each.values.size(), each.values.extent[1], each.row_count.data,
              part.partial + part.partials()};
      f(part);
    }
    return part.partial + part.partials() - scratch.data;
  }
};

/// For norm and gradient_scale, float: half a unit in the last place, and nothing else to speak of.
inline constexpr Tolerance kGlobalNormTolerance{.absolute = 0, .relative = 0x1p-23, .worst = 0.35};

}  // namespace carousel
