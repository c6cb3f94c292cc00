#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/view.h"

namespace carousel {

/// The rows of a table that have the largest products with each query, for the nearest words:
///
///     all[n,v]   = Σ_e query[n,e]·table[v,e]
///     index[n,·] = the K rows v of largest all[n,v], the largest first
///     score[n,k] = all[n, index[n,k]]
///
/// Of equal scores (−0 is 0) the lower index comes first. With rows of length 1 on both sides the
/// scores are cosines. Without query and table, `all` holds scores of another origin, as the logits
/// of which a beam search takes the likeliest.
///
/// Values   Rows in excluded[n,·] are never chosen; what is no row of the table excludes nothing.
///          Where fewer than K rows are left, index −1 and score −inf follow. A query of which any
///          score is NaN, an excluded one too, gives index −1 and score NaN throughout.
/// Errors   ShapeError if the extents disagree, unless K is 1 … kMost and V is at most kMaxRows.
///          N == 0 does nothing; with V == 0 no row is left.
/// Accuracy scores that are not given are a Matmul's: kMatmulTolerance (f32, for either T) under its conditions,
///          and repeat as its. The choice among them is exact: two devices differ in it only where
///          scores are nearer than that.
/// Memory   reads query and table once, writes `all` once; reads `all` once on the CPU, on CUDA from
///          cache twice, and once more for every 11 bits by which the largest 2,048 are not told
///          apart from the rest.
/// Source   the selection: radix select, as of Alabi, Blanchard, Gordon & Steinbach 2012, ACM JEA 17,
///          section 3.2.
template <class T>
struct TopK {
  static constexpr std::int64_t kMost = 1024;
  static constexpr std::int64_t kMaxRows = (std::int64_t{1} << 24) - 1;

  View<const T, 2> query{};                ///< [N, E]; absent with the table: `all` is given
  View<const T, 2> table{};                ///< [V, E]
  View<const std::int32_t, 2> excluded{};  ///< [N, X]; may be absent
  View<float, 2> all;                      ///< [N, V] out, or given
  View<std::int32_t, 2> index;             ///< [N, K] out
  View<float, 2> score;                    ///< [N, K] out
  /// Whether `all` is given: there is neither query nor table.
  constexpr bool scored() const { return query.extent == table.extent && query.extent[0] == 0; }
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
