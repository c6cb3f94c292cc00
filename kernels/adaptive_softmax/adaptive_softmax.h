#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

// What the adaptive softmax needs beside products and linear_cross_entropy. The words are in order
// of falling frequency. The head is a softmax over the S most frequent ones, its shortlist, and one
// more entry for each of K clusters that the others are cut into; each cluster has a softmax of its
// own, whose input is a narrow projection of the hidden units:
//
//     log p(w) = log softmax(head)[w]                                          w < S
//              = log softmax(head)[S + k] + log softmax(tail k)[w − first k]   w in cluster k
//
// Source   Grave, Joulin, Cissé, Grangier & Jégou 2017, arXiv:1609.04309; the parameters are those
//          of PyTorch's nn.AdaptiveLogSoftmaxWithLoss.
namespace carousel {

/// Where a vocabulary is cut: cluster k has the words bound[k] ≤ w < bound[k + 1].
struct AdaptiveCutoffs {
  static constexpr int kMostClusters = 8;

  int clusters = 0;                                        ///< K
  std::array<std::int64_t, kMostClusters + 1> bound = {};  ///< S first, V last; K + 1 are in use

  constexpr std::int64_t shortlist() const { return bound[0]; }
  constexpr std::int64_t vocabulary() const { return bound[static_cast<std::size_t>(clusters)]; }
  constexpr std::int64_t head() const { return shortlist() + clusters; }
  constexpr std::int64_t first(int cluster) const {
    return bound[static_cast<std::size_t>(cluster)];
  }
  constexpr std::int64_t words(int cluster) const { return first(cluster + 1) - first(cluster); }
  constexpr bool has(int cluster, std::int32_t word) const {
    return word >= first(cluster) && word < first(cluster + 1);
  }
  void check() const;
};

/// The cut of V words at each of the cutoffs. ConfigError unless there are 1 to kMostClusters of
/// them, rising, above 0 and below V.
AdaptiveCutoffs adaptive_cutoffs(std::span<const std::int64_t> cutoffs, std::int64_t vocabulary);

/// Sends each target to the softmaxes that it belongs to. Of the head, all rows:
///
///     head_target[n] = target[n] if it is below S, S + k if it is in cluster k
///     counted[0]     = how many targets are not kIgnoreTarget
///
/// Of cluster k, the rows whose target is in it, ascending, count[k] of them:
///
///     row[k,m]   = n of the m-th of them
///     local[k,m] = target[n] − first word of the cluster
///     place[k,n] = m; −1 if row n is none of them
///
/// Values   from count[k] on, row is −1 and local is kIgnoreTarget. An ignored target stays ignored
///          in the head and is in no cluster. Any other target outside [0, V) gets a head_target
///          outside the head, is in no cluster, and counts.
/// Errors   ShapeError if the extents disagree or the cutoffs are not rising. N == 0 gives counts
///          of 0.
/// Accuracy exact.
/// Memory   reads target 2·K + 2 times, from the cache, and writes 3·K + 1 numbers for each.
template <class A>
struct AdaptiveRoute {
  AdaptiveCutoffs cutoffs;
  View<const std::int32_t, 1> target;  ///< [N]
  View<std::int32_t, 1> head_target;   ///< [N] out
  View<std::int32_t, 2> row;           ///< [K, N] out
  View<std::int32_t, 2> local;         ///< [K, N] out
  View<std::int32_t, 2> place;         ///< [K, N] out
  View<std::int32_t, 1> count;         ///< [K] out
  View<A, 1> counted;                  ///< [1] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Gathers rows, some of which are not there:
///
///     to[n,i] (+)= from[row[n],i] if 0 ≤ row[n] < R, else 0
///
/// With `row` and `place` of AdaptiveRoute in turn: the rows of a cluster, and what belongs to each
/// of them added at its place.
///
/// Errors   ShapeError if the extents disagree. An empty `to` does nothing; if R == 0, no row is
///          there.
/// Accuracy exact: a copy or, when accumulating, the sum in float rounded once to T. Equal bit for
///          bit on every device.
/// Memory   reads a row of `from` for each that is there; writes `to` once, but when accumulating
///          reads and writes only the rows that are there. `from` and `to` may not overlap.
template <class T>
struct SelectRows {
  View<const T, 2> from;            ///< [R, I]
  View<const std::int32_t, 1> row;  ///< [N]
  Gradient<T, 2> to;                ///< [N, I] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Log-probabilities of the words of one part of the vocabulary, from its logits:
///
///     y[b,w] = log softmax(head[b])[w]                               the shortlist, without a tail
///     y[b,w] = log softmax(head[b])[S + k] + log softmax(tail[b])[w − first k]        cluster k
///
/// Values   other columns of y are left. A logit of −inf is a word with probability 0. A NaN among
///          a row's logits, or a row of nothing but −inf, gives NaN.
/// Errors   ShapeError if the extents disagree or the cutoffs are not rising. B == 0 does nothing.
/// Accuracy within kAdaptiveLogProbabilityTolerance of the oracle for |logits| ≤ 30. Repeats bit
///          for bit.
/// Memory   reads head and tail, from the cache a second time, and writes the part's columns of y.
template <class T>
struct AdaptiveLogProbabilities {
  AdaptiveCutoffs cutoffs;
  View<const T, 2> head;        ///< [B, S + K]
  View<const T, 2> tail{};      ///< [B, words of the cluster]; absent: the shortlist
  int cluster = 0;              ///< k; with a tail alone
  View<Accumulator<T>, 2> y{};  ///< [B, V] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

inline constexpr Tolerances kAdaptiveLogProbabilityTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.3},
    .bf16 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.3}};

}  // namespace carousel
