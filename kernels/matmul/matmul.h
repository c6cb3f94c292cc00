#pragma once

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// The product of two matrices.
///
///     c[i,j] = Σ_l A[i,l]·B[l,j]   (+ c[i,j] if accumulate)   (+ bias[j])
///
/// A is `a`, or its transpose; B is `b`, or its transpose. Inputs are stored as T, the result as
/// Out: {float}, {bf16}, {bf16, float}, {double}.
///
/// Values   NaN and infinity spread as arithmetic says. c may hold anything unless it is added to.
/// Errors   ShapeError if the extents disagree. K == 0 is the empty sum, 0; an empty c stays.
/// Accuracy within kMatmulTolerance of the exact product of the stored inputs for |a|, |b|, |bias|
///          ≤ 1 and K ≤ 1024; a float result of bf16 inputs is as good as one of float. Sums are
///          float. A bf16 result is rounded after the sum; its bias may be rounded to bf16 before.
///          tf32: CUDA may round or cut float inputs to 10 mantissa bits, within kMatmulTf32Tolerance;
///          other types and the CPU ignore it. Repeats bit for bit (on the CPU, with the same
///          number of threads): the algorithm depends on shapes and alignment alone.
/// Memory   needs no scratch of the caller's. c overlaps no input.
template <class T, class Out = T>
struct Matmul {
  View<const T, 2> a;                    ///< [M, K], or [K, M] if transpose_a
  View<const T, 2> b;                    ///< [K, N], or [N, K] if transpose_b
  View<const Accumulator<T>, 1> bias{};  ///< [N], may be absent
  View<Out, 2> c;                        ///< [M, N] out
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;  ///< add to c instead of overwriting it
  bool tf32 = false;        ///< float: allow the faster, rougher product
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

inline constexpr Tolerances kMatmulTolerance{
    .f32 = {.absolute = 4e-5, .relative = 4e-6, .worst = 0.52},
    .bf16 = {.absolute = 3e-3, .relative = 0x1p-8, .worst = 0.95}};
inline constexpr Tolerance kMatmulTf32Tolerance{.absolute = 2e-2, .relative = 1e-3, .worst = 0.58};

}  // namespace carousel
