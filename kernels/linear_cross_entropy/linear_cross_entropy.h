#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace carousel {

/// A piece of a matrix of logits, by its extents.
struct LogitTile {
  std::int64_t rows = 0, words = 0;
  bool operator==(const LogitTile&) const = default;
};

/// The output layer of a classifier over V words and its loss in one op, never holding more logits
/// than one tile of them; and, in the same pass, the gradients of the mean loss.
///
///     logits[n,v] = bias[v] + Σ_h hidden[n,h]·weight[v,h]
///     loss[n]     = cross-entropy of logits[n,·] and target[n], smoothed: see cross_entropy.h
///     count       = number of targets that are not kIgnoreTarget
///     mean_loss   = Σ_n row_weight[n]·loss[n] / denominator, 0 if denominator is 0
///
///     g[n,v]         = term_weight·∂mean_loss/∂logits[n,v]: see cross_entropy.h with
///                      d_loss[n] = term_weight·row_weight[n] / denominator, 0 if denominator is 0
///     d_hidden[n,h]  = Σ_v g[n,v]·weight[v,h]
///     d_weight[v,h]  = Σ_n g[n,v]·hidden[n,h]
///     d_bias[v]      = Σ_n g[n,v]
///
/// A tile is some rows by all words or, where that makes the weight and its gradient pass by too
/// often, by some words. A tile's logits are one product, kept as Accumulator<T>. For the rows of a
/// tile: first all their words, tile after tile, reduced to what the loss of a row wants; then, from
/// the last tile to the first, the logits again (the last tile's are still there), turned into g (in
/// place, but for bf16 beside them, for products want both factors in bf16), and the products for
/// d_hidden and d_weight while the tile is hot. A gradient whose view is absent is not computed.
///
/// An absent row_weight is 1 everywhere, an absent denominator is count. A denominator from outside
/// makes parts of a batch add up: micro-batches and ranks give the gradients of the whole batch's
/// mean if each divides by the whole batch's count, or sum of row weights. term_weight is the share
/// of this term in an objective of several; it does not change mean_loss.
///
/// Values   as cross_entropy. A bias of −inf masks a word: its d_bias and its share of d_hidden
///          are 0. A target outside [0, V) that is not kIgnoreTarget counts, makes loss, mean_loss
///          and that row of d_hidden NaN, and so all of d_weight and d_bias. An ignored row has
///          loss 0 and d_hidden 0. So has a row of weight 0, but for its loss[n], which is never
///          weighted: an infinite loss adds nothing to mean_loss. A NaN is not removed by a weight
///          of 0. Weights may be negative. A NaN denominator makes mean_loss and gradients NaN.
/// Errors   ShapeError if the extents disagree, V == 0, chunk_rows or chunk_words < 0 or scratch is
///          smaller than scratch_bytes(device, op); ConfigError unless 0 ≤ ε ≤ 1 and term_weight is
///          finite. N == 0: mean_loss and count become 0, gradients of the weights 0 or are left, as
///          their flag says.
/// Accuracy losses, and gradients times denominator, for weights in [−1, 1], are within
///          kLinearCrossEntropyTolerance and
///          kLinearCrossEntropyGradientTolerance of the oracle for |hidden| ≤ 1 and |weight| ≤
///          8 / √H; bf16 gradients carry the rounding of g to bf16. Repeats bit for bit
///          with the same device, tile and number of threads.
/// Memory   scratch_bytes(device, op): at most kScratchLimit, unless one row of logits is more. Per
///          set of rows, weight is read twice (in tiles of some words three times), and d_weight is
///          read and written; the first set only writes it.
/// Source   the chunks of rows: Hsu et al. 2024, arXiv:2410.10989 (Liger Kernel); logits
///          computed twice: Wijmans et al. 2024, arXiv:2411.09009.
template <class T>
struct LinearCrossEntropy {
  View<const T, 2> hidden;                      ///< [N, H]
  View<const T, 2> weight;                      ///< [V, H]
  View<const Accumulator<T>, 1> bias{};         ///< [V]    may be absent
  View<const std::int32_t, 1> target;           ///< [N]    a word, or kIgnoreTarget
  View<const Accumulator<T>, 1> row_weight{};   ///< [N]    may be absent
  View<const Accumulator<T>, 1> denominator{};  ///< [1]    may be absent
  float label_smoothing = 0;                    ///< ε
  float term_weight = 1;                        ///< scales the gradients alone
  View<Accumulator<T>, 1> loss;                 ///< [N]    out: nats, not weighted
  View<Accumulator<T>, 1> mean_loss;            ///< [1]    out: nats per unit of denominator
  View<std::int32_t, 1> count;                  ///< [1]    out
  Gradient<T, 2> d_hidden{};                    ///< [N, H] out, may be absent
  Gradient<Accumulator<T>, 2> d_weight{};       ///< [V, H] out, may be absent
  Gradient<Accumulator<T>, 1> d_bias{};         ///< [V]    out, may be absent
  std::int64_t chunk_rows = 0;   ///< rows of logits held at once; 0: all, or as chunk_words says
  std::int64_t chunk_words = 0;  ///< words of them; 0: all. Both 0: what suits the device
  bool tf32 = false;             ///< float on CUDA: products round inputs to tf32
  View<std::byte, 1> scratch{};  ///< scratch_bytes(device, op), aligned as Memory is

  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;
  bool wants_gradient() const {
    return d_hidden.present() || d_weight.present() || d_bias.present();
  }

  /// The rows and words of the logits that are held at once: what is given or, if both are 0, the
  /// cheapest within kScratchLimit (plan.h); at most [N, V].
  LogitTile tile(const Device& device) const;

  static constexpr std::int64_t kScratchLimit = std::int64_t{64} << 20;
};

inline constexpr Tolerances kLinearCrossEntropyTolerance{
    .f32 = {.absolute = 5e-6, .relative = 1e-6, .worst = 0.35},
    .bf16 = {.absolute = 5e-6, .relative = 1e-6, .worst = 0.2}};
inline constexpr Tolerances kLinearCrossEntropyGradientTolerance{
    .f32 = {.absolute = 2e-6, .relative = 1e-5, .worst = 0.5},
    .bf16 = {.absolute = 2e-2, .relative = 1e-2, .worst = 0.6}};

}  // namespace carousel
