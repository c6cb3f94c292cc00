#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/common/alias_table.h"
#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/random.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// The words whose rows of an output matrix a step reads: the N targets, and S words drawn at
/// random that all N share,
///
///     candidate[n]     = target[n], or kNoToken where it is kIgnoreTarget
///     candidate[N + s] = table.draw(two words of element s of `source`), with replacement
///     counted[0]       = how many targets are not kIgnoreTarget
///
/// Block b of the source has the words of elements 2·b and 2·b + 1.
///
/// Values   targets are copied as they are, whatever they hold.
/// Errors   ShapeError if the extents disagree, or there is no table or no step. S == 0 draws
///          nothing.
/// Accuracy exact: equal bit for bit on every device.
/// Memory   reads target twice and S columns of the table, writes N + S numbers.
template <class A>
struct SampledCandidates {
  View<const std::int32_t, 1> target;  ///< [N]
  AliasTable table;                    ///< of V words
  RandomSource source;                 ///< with its step on the device
  View<std::int32_t, 1> candidate;     ///< [N + S] out
  View<A, 1> counted;                  ///< [1] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// What sampled words stand for.
enum class SampledKind : std::uint8_t {
  softmax,  ///< all words but the target, in an estimate of the softmax's normaliser
  noise     ///< noise, which the target is told from: noise-contrastive estimation
};

/// The loss of an output layer over V words from the logits of few: a row's target, and S words
/// drawn from a distribution q that all rows share. A logit is corrected by the log of how often
/// its word is expected among the S, log_expected[w] = log(S·q(w)):
///
///     z[n,s] = hidden[n]·row[N + s] + bias[N + s] − log_expected[candidate[N + s]]
///     x[n]   = hidden[n]·row[n] + bias[n]
///
///     softmax   loss[n] = log(exp x[n] + Σ_s exp z[n,s]) − x[n], over the s that did not draw the
///               target: they are accidental hits. The sum is an unbiased estimate of Σ_w exp
///               logit(w).
///     noise     loss[n] = softplus(−x'[n]) + Σ_s softplus(z[n,s]),   x' = x −
///     log_expected[target]:
///               is the word the target, or one of the S? The normaliser is taken for 1.
///
///     mean_loss = Σ_n loss[n] / denominator, 0 if that is 0
///
/// and the gradients of mean_loss: d_row and d_bias of all N + S candidates, d_hidden.
///
/// Values   a candidate[n] of kNoToken is an ignored row: its loss, d_hidden, d_row and d_bias are
///          0. One outside [0, V) makes loss, mean_loss and its row of d_hidden NaN, and so what
///          all rows share. A log_expected of −inf at a word that is drawn makes its logit +inf,
///          and the losses NaN or +inf.
/// Errors   ShapeError if the extents disagree, S < 1 or scratch is smaller than
///          scratch_bytes(device, op). N == 0: mean_loss becomes 0 and so do the gradients of the S
///          drawn words.
/// Accuracy losses, and gradients times denominator, are within kSampledLossTolerance and
///          kSampledLossGradientTolerance of the oracle for |hidden| ≤ 1, |row| ≤ 8 / √H and S ≤
///          1024. Repeats bit for bit with the same device and number of threads.
/// Memory   scratch holds N·S logits, in bf16 their gradients too, and N + S numbers. Nothing is of
///          size V but log_expected, of which N + S numbers are read.
/// Source   softmax: Bengio & Senécal 2008, IEEE TNN 19(4):713, section III; Jean, Cho, Memisevic &
///          Bengio 2015, arXiv:1412.2007, section 3. noise: Gutmann & Hyvärinen 2010, AISTATS;
///          Mnih & Teh 2012, arXiv:1206.6426, section 3, whose normaliser is 1.
template <class T>
struct SampledLoss {
  SampledKind kind = SampledKind::softmax;
  View<const T, 2> hidden;                ///< [N, H]
  View<const T, 2> row;                   ///< [N + S, H] of the matrix, those of the targets first
  View<const Accumulator<T>, 1> bias;     ///< [N + S]
  View<const std::int32_t, 1> candidate;  ///< [N + S] the words
  View<const Accumulator<T>, 1> log_expected;  ///< [V]
  View<const Accumulator<T>, 1> denominator;   ///< [1]
  View<Accumulator<T>, 1> loss;                ///< [N] out: nats
  View<Accumulator<T>, 1> mean_loss;           ///< [1] out
  Gradient<T, 2> d_hidden{};                   ///< [N, H] out; may be absent
  View<T, 2> d_row{};                          ///< [N + S, H] out; may be absent
  View<Accumulator<T>, 1> d_bias{};            ///< [N + S] out; absent as d_row
  bool tf32 = false;                           ///< float on CUDA: products round inputs to tf32
  View<std::byte, 1> scratch{};                ///< scratch_bytes(device, op), aligned as Memory is

  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;
};

inline constexpr Tolerances kSampledLossTolerance{
    .f32 = {.absolute = 2e-6, .relative = 1e-6, .worst = 0.3},
    .bf16 = {.absolute = 2e-6, .relative = 1e-6, .worst = 0.3}};
inline constexpr Tolerances kSampledLossGradientTolerance{
    .f32 = {.absolute = 2e-5, .relative = 1e-5, .worst = 0.8},
    .bf16 = {.absolute = 8e-2, .relative = 1e-2, .worst = 0.8}};

}  // namespace carousel
