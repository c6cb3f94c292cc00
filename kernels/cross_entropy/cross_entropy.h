#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// A target with this value is padding: its row has loss 0 and gradient 0.
inline constexpr std::int32_t kIgnoreTarget = -1;

constexpr bool in_vocabulary(std::int32_t word, std::int64_t vocab) {
  return word >= 0 && word < vocab;
}

/// Cross-entropy of the categorical distribution softmax(logits), one row per predicted token,
/// against the target smoothed by ε = label_smoothing: 1 − ε on the word that came, ε / V more on
/// every word.
///
///     lse[n]  = log Σ_v exp(logits[n,v])
///     nll[n]  = lse[n] − logits[n, target[n]]                                        (nats)
///     loss[n] = (1 − ε)·nll[n] + ε·mean_v (lse[n] − logits[n,v])
///
/// N = T·B predicted tokens, V = vocabulary size. Bits are nats / ln 2; perplexity is
/// exp(mean nll).
///
/// Values   logits are finite or −inf (a word masked out). The loss is +inf if the target is
///          masked or, with ε > 0, any word is; NaN if the whole row is masked (lse is −inf). A
///          target outside [0, V) that is not kIgnoreTarget gives loss NaN and reads nothing out
///          of bounds; lse is written for every row. A NaN logit makes lse and loss NaN.
/// Errors   ShapeError if the extents disagree or V == 0; ConfigError unless 0 ≤ ε ≤ 1. N == 0
///          does nothing.
/// Accuracy within kCrossEntropyTolerance of the oracle for |logits| ≤ 100. Repeats bit for bit,
///          on the CPU with any number of threads.
/// Memory   reads logits once (the CPU twice, a row at a time, from its cache), writes 2N numbers,
///          needs no scratch.
/// Source   Bengio et al. 2003, JMLR 3:1137 (the loss); Szegedy et al. 2016, arXiv:1512.00567,
///          section 7 (smoothing, over all V words as PyTorch has it); Milakov & Gimelshein 2018,
///          arXiv:1805.02867, algorithm 3 (the one-pass log-sum-exp of the CUDA kernel).
template <class T>
struct CrossEntropyForward {
  View<const T, 2> logits;             ///< [N, V] unnormalised log-probabilities
  View<const std::int32_t, 1> target;  ///< [N]    index of the word that came, or kIgnoreTarget
  float label_smoothing = 0;           ///< ε
  View<Accumulator<T>, 1> loss;        ///< [N]    out: nats
  View<Accumulator<T>, 1> lse;         ///< [N]    out: kept for the backward pass
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// ∂L/∂logits, given d_loss = ∂L/∂loss and what the forward pass kept:
///
///     d_logits[n,v] = d_loss[n] · (exp(logits[n,v] − lse[n]) − (1 − ε)·[v = target[n]] − ε / V)
///
/// Values   an ignored row gets (or adds) 0, a target outside [0, V) NaN.
/// Errors   as the forward pass. d_logits may be logits themselves, whose values are then lost;
///          ShapeError if they are and are to be added to.
/// Accuracy within kCrossEntropyBackwardTolerance of the oracle that computes lse itself.
/// Memory   reads logits once, writes d_logits once (and reads it if it adds), needs no scratch.
template <class T>
struct CrossEntropyBackward {
  View<const Accumulator<T>, 1> d_loss;  ///< [N]
  View<const T, 2> logits;               ///< [N, V] as in the forward pass
  View<const std::int32_t, 1> target;    ///< [N]    as in the forward pass
  float label_smoothing = 0;             ///< as in the forward pass
  View<const Accumulator<T>, 1> lse;     ///< [N]    from the forward pass
  Gradient<T, 2> d_logits;               ///< [N, V] out; may be the memory of logits
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// Throws ConfigError "<op>: label smoothing is <epsilon>, expected 0 to 1" unless it is.
void check_label_smoothing(const char* op, float epsilon);

inline constexpr Tolerances kCrossEntropyTolerance{
    .f32 = {.absolute = 5e-7, .relative = 5e-7, .worst = 0.35},
    .bf16 = {.absolute = 5e-7, .relative = 5e-7, .worst = 0.3}};
inline constexpr Tolerances kCrossEntropyBackwardTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-5, .worst = 0.4},
    .bf16 = {.absolute = 1e-6, .relative = 5e-3, .worst = 0.8}};

}  // namespace carousel
