#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/common/bf16.h"

struct dnnl_memory;

namespace carousel {

/// C[m,n] = A·B (+ C if accumulate) (+ bias[n] added to every row), row-major, contiguous.
/// A is [m,k], or [k,m] if transpose_a; B is [k,n], or [n,k] if transpose_b. C overlaps neither.
/// Each may be some columns of a wider matrix, whose rows are then `a_stride` (`b_stride`,
/// `c_stride`) elements apart. m, n or k of 0: the empty sum, so C becomes 0 (or stays), plus bias.
/// The CPU's counterpart of kernels/common/cuda/gemm.h, computed by oneDNN.
///
/// bf16 inputs are multiplied by the CPU's own instructions where multiplies_bf16(); else they are
/// widened to float, which is exact, and multiplied in float; at most four rows of A meet a transposed
/// B in loops that read B once. Either way sums are float and are rounded once if Out is bf16. double
/// is a plain loop, for gradient checks. Repeats bit for bit with the same number of threads.
template <class T, class Out = T>
struct CpuProduct {
  bool transpose_a = false, transpose_b = false, accumulate = false;
  std::int64_t m = 0, n = 0, k = 0;
  const T* a = nullptr;
  std::int64_t a_stride = 0;  ///< 0: A's rows follow one another
  const T* b = nullptr;
  std::int64_t b_stride = 0;
  const Accumulator<T>* bias = nullptr;  ///< may be null
  Out* c = nullptr;
  std::int64_t c_stride = 0;

  std::int64_t a_columns() const { return transpose_a ? m : k; }
  std::int64_t b_columns() const { return transpose_b ? k : n; }
  std::int64_t row_of_a() const { return a_stride > 0 ? a_stride : a_columns(); }
  std::int64_t row_of_b() const { return b_stride > 0 ? b_stride : b_columns(); }
  std::int64_t row_of_c() const { return c_stride > 0 ? c_stride : n; }
};
/// Whether the CPU multiplies bf16 faster than float, as far as oneDNN may use it: all of AMD's that
/// can do it at all, at twice the rate; of Intel's those with AMX, for AVX-512's instruction alone has
/// half the rate of float's. Known from the CPU and not measured, so that a machine always gives the
/// same bits.
bool multiplies_bf16();

/// For {float}, {double}, {bf16} and {bf16, float}. Thread-safe; allocates nothing once a shape
/// (and, for bf16, a size) has been seen by the calling thread.
template <class T, class Out>
void multiply(const CpuProduct<T, Out>& product);

/// The shape of a matrix B[k,n] that many products with `rows` rows of A will share.
struct PackedShape {
  std::int64_t k = 0, n = 0;
  std::int64_t rows = 0;  ///< m of the later products; another m is allowed, and may be slower
  /// Between the rows of A and of C, as above: what has gaps is multiplied by B as it is.
  std::int64_t a_stride = 0, c_stride = 0;

  std::int64_t row_of_a() const { return a_stride > 0 ? a_stride : k; }
  std::int64_t row_of_c() const { return c_stride > 0 ? c_stride : n; }
  bool has_gaps() const { return row_of_a() != k || row_of_c() != n; }
};

/// B in the layout in which products with few rows run fastest: a recurrence packs its weights once
/// and uses them at every time step. T, of A and B, is float, double or bf16, which is multiplied
/// as above. Borrows its storage.
template <class T>
class PackedMatrix {
 public:
  static std::size_t bytes(const PackedShape& shape);

  /// Packs b, which is [k,n], or [n,k] if `transpose`, into `storage`: bytes(shape) bytes, aligned
  /// to 64, that outlive this object.
  PackedMatrix(const PackedShape& shape, const T* b, bool transpose, void* storage);

  /// C[m,n] = A[m,k]·B (+ C if accumulate). Thread-safe.
  void multiply(std::int64_t m, const T* a, Accumulator<T>* c, bool accumulate) const;

 private:
  template <class Stored>
  void pack(const T* b, bool transpose, void* storage);
  template <class Stored>
  void multiply_stored(std::int64_t m, const Stored* a, std::int64_t row_of_a, Accumulator<T>* c,
                       bool accumulate) const;

  PackedShape shape_;
  const void* storage_ = nullptr;
  std::shared_ptr<dnnl_memory> packed_;  ///< oneDNN's handle of the storage; null if plain
};

}  // namespace carousel
