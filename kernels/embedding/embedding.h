#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"
#include "kernels/dropout/dropout.h"

namespace carousel {

/// Drops whole rows of an embedding: a word of the vocabulary is dropped wherever it occurs in a
/// step, or nowhere,
///
///     factor[v] = scale · [dropout_keeps(source, step, v, drop_probability)],    scale as in dropout
///
/// At a drop_probability of 0 all factors are 1, and nothing is drawn.
struct RowDropout {
  float drop_probability = 0;
  RandomSource source{};  ///< with its step on the device; not needed at 0
  void check() const;
};

/// Stands where there is no token, such as before the begin of a text.
inline constexpr std::int32_t kNoToken = std::numeric_limits<std::int32_t>::min();

/// Looks up the embedding of every token:
///
///     y[n,e] = factor[token[n]] · weight[token[n], e]
///
/// N = T·B tokens, V = vocabulary size, E = embedding width.
///
/// Values   kNoToken gives a row of zeros; any other token outside [0, V) gives a row of NaN and reads nothing out of bounds. A dropped NaN
///          or infinity gives NaN, as the product says.
/// Errors   ShapeError if the extents disagree or a source that is needed has no step; ConfigError
///          if drop_probability is not in [0, 1]. N == 0 or E == 0 does nothing.
/// Accuracy exact: the product in float, rounded once to T. Without dropout, a copy.
/// Memory   reads N rows of weight, writes y once. Factors are drawn as tokens are looked up: there
///          is no work of size V.
/// Source   Bengio et al. 2003, JMLR 3:1137, section 2: the shared matrix C. Gal & Ghahramani 2016,
///          arXiv:1512.05287, section 4.2, and Merity, Keskar & Socher 2018, arXiv:1708.02182,
///          section 4.3: the dropout.
template <class T>
struct EmbeddingForward {
  View<const T, 2> weight;            ///< [V, E]
  View<const std::int32_t, 1> token;  ///< [N]
  View<T, 2> y;                       ///< [N, E] out
  RowDropout dropout{};
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradient of the weight, given d_y = ∂L/∂y: every row sums the gradients of its token,
///
///     d_weight[v,e] (+)= factor[v] · Σ_{n: token[n] = v} coefficient[n] · d_y[⌊n / P⌋, e]
///
/// where P tokens share a row of d_y, and P and the coefficients are 1 where there are none. The sum
/// has a fixed order. The positions n, sorted stably by token, are cut into tiles of
/// embedding_tile(N) positions; the terms of one token within a tile are added in order of n, and
/// so are the sums of the tiles, and the sum is multiplied by its factor. A coefficient is part of
/// the addition, as one fused multiply-add, and when accumulating so is the factor.
/// Tiles hold equally many positions whatever the tokens are, so neither a token that occurs 10⁵
/// times nor a vocabulary of 10⁶ that is hardly touched unbalances the work.
///
/// Values   a row no token hit becomes 0, or stays when accumulating. A token outside [0, V)
///          contributes nothing and writes nothing: its row of y was NaN, so the loss shows it, unless
///          it was kNoToken.
/// Errors   ShapeError if the extents disagree, if N is no multiple of the rows of d_y, scratch is too
///          small, or N ≥ 2³¹; and those of dropout in the forward pass.
/// Accuracy within kEmbeddingTolerance; with coefficients, whose products have all digits of a float,
///          within its f32 for every T, if they are at most 1. Equal bit for bit on every device and
///          for every number of threads: additions in the order above and one product.
/// Memory   reads d_y once, writes d_weight once (and reads it once when accumulating), sorts N
///          pairs, and keeps at most 2·N / embedding_tile(N) partial rows in scratch.
template <class T>
struct EmbeddingBackward {
  View<const T, 2> d_y;                         ///< [N / P, E]
  View<const std::int32_t, 1> token;            ///< [N]    as in the forward pass
  View<const Accumulator<T>, 1> coefficient{};  ///< [N]    absent: 1 each, and P = 1
  Gradient<Accumulator<T>, 2> d_weight;         ///< [V, E] out
  RowDropout dropout{};                         ///< as in the forward pass
  View<std::byte, 1> scratch{};                 ///< scratch_bytes(device, op), aligned to 256
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;
};

/// The same gradient, row-sparse: only the rows that tokens hit, at a cost that does not grow with
/// V. With v_0 < v_1 < … the distinct tokens inside [0, V):
///
///     row_count[0] = how many there are,   row[r] = v_r
///     d_row[r,e] = factor[v_r] · Σ_{n: token[n] = v_r} coefficient[n] · d_y[⌊n / P⌋, e]
///
/// summed in the order of EmbeddingBackward, and so equal to its rows bit for bit.
///
/// Values   a dropped row is among the rows, with a gradient of 0. Entries of row and rows of d_row from row_count[0] on are left as they are. A token
///          outside [0, V) contributes nothing. N == 0 gives row_count[0] = 0.
/// Errors   those of EmbeddingBackward.
/// Accuracy that of EmbeddingBackward.
/// Memory   reads d_y once, writes row_count[0] rows, sorts N pairs, and keeps at most
///          2·N / embedding_tile(N) partial rows in scratch.
template <class T>
struct EmbeddingRowBackward {
  std::int64_t vocab = 0;                       ///< V
  View<const T, 2> d_y;                         ///< [N / P, E]
  View<const std::int32_t, 1> token;            ///< [N] as in the forward pass
  View<const Accumulator<T>, 1> coefficient{};  ///< [N] as of EmbeddingBackward
  View<std::int32_t, 1> row;                    ///< [N] out
  View<std::int32_t, 1> row_count;              ///< [1] out
  View<Accumulator<T>, 2> d_row;                ///< [N, E] out
  RowDropout dropout{};                         ///< as in the forward pass
  View<std::byte, 1> scratch{};                 ///< scratch_bytes(device, op), aligned to 256
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;
};

/// Positions per tile, a power of two: about √N / 4, so that the longest chain of additions, one
/// tile and then one sum per tile, stays short however often a token occurs.
constexpr std::int64_t embedding_tile(std::int64_t tokens) {
  std::int64_t tile = 32;
  while (tile < 1024 && 16 * tile * tile < tokens) tile *= 2;
  return tile;
}

/// Of the backward passes, for |d_y| ≤ 1 and at most 17,000 occurrences of a token. (bf16 gradients
/// have few digits, so that short float sums of them are all but exact.)
inline constexpr Tolerances kEmbeddingTolerance{
    .f32 = {.absolute = 1e-5, .relative = 1e-5, .worst = 0.33},
    .bf16 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.21}};

}  // namespace carousel
