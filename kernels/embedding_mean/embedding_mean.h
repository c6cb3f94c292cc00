#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// The mean of the embeddings of the tokens of a context, without ever holding the rows themselves:
///
///     y[n,e] = Σ_{k: token[n,k] is one} share[n,k] · weight[token[n,k], e],    share[n,k] = 1 / c[n]
///
/// N contexts with room for K tokens each, of which c[n] are there and the others are kNoToken. The
/// gradient of the weight is EmbeddingBackward's or EmbeddingRowBackward's, with d_y, all N·K tokens,
/// and the shares as coefficients.
///
/// Values   kNoToken has a share of 0 and adds nothing. A context without tokens gives a row of zeros. Any
///          other token outside [0, V) gives a row of NaN and reads nothing out of bounds.
/// Errors   ShapeError if the extents disagree. N == 0 or E == 0 does nothing but write shares.
/// Accuracy of y within kEmbeddingMeanTolerance for |weight| ≤ 1 and K ≤ 64; shares are rounded once. The
///          rows are added in order of k, and the sum is multiplied by the share: repeats bit for
///          bit, with any number of threads.
/// Memory   reads the rows of weight that tokens name, writes y and share once.
/// Source   Mikolov, Chen, Corrado & Dean 2013, arXiv:1301.3781, section 3.1: CBOW's projection layer.
template <class T>
struct EmbeddingMean {
  View<const T, 2> weight;            ///< [V, E]
  View<const std::int32_t, 2> token;  ///< [N, K]
  View<T, 2> y;                       ///< [N, E] out
  View<Accumulator<T>, 2> share;      ///< [N, K] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  /// 1 / c[n]; 0 where a context has no token. On the device.
  constexpr Accumulator<T> share_of(std::int64_t n) const {
    std::int64_t count = 0;
    for (std::int64_t k = 0; k < token.extent[1]; ++k) count += token(n, k) != kNoToken ? 1 : 0;
    return count == 0 ? Accumulator<T>{0} : Accumulator<T>{1} / static_cast<Accumulator<T>>(count);
  }
};

inline constexpr Tolerances kEmbeddingMeanTolerance{
    .f32 = {.absolute = 2e-7, .relative = 2e-7, .worst = 0.45},
    .bf16 = {.absolute = 2e-7, .relative = 0x1p-8, .worst = 0.998}};

}  // namespace carousel
