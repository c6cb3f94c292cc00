#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// Decisions between yes and no, by a logistic function of a row of hidden units and a row of weight for
/// each decision, and the loss of the right answers; and, in the same pass, the gradients of the loss:
///
///     logit[n,c] = Σ_e hidden[n,e]·weight[choice[n,c], e]
///     loss[n]    = Σ_c −log σ(±logit[n,c]),    + where answer[n,c] is not 0      (nats)
///     count      = number of rows that count: choice[n,0] is not kNoToken
///     mean_loss  = Σ_n loss[n] / denominator, 0 if denominator is 0
///
///     d_logit[n,c]  = scale·(σ(logit[n,c]) − [answer[n,c] ≠ 0])
///     d_hidden[n,e] = Σ_c d_logit[n,c]·weight[choice[n,c], e]
///
/// N rows with room for C choices each. An absent denominator is count. scale is term_weight /
/// denominator or, with gradients_of_sum, term_weight: as if each row had a step of its own. The
/// gradient of weight is that of a lookup, EmbeddingBackward's or EmbeddingRowBackward's, with hidden as
/// d_y, all N·C choices as tokens, and d_logit as coefficients.
///
/// Values   a choice of kNoToken is none: its d_logit is 0 and it adds nothing. A row that does not count
///          has loss, d_logit and d_hidden 0, whatever its other choices are. Any other choice outside
///          [0, V) makes the row's loss, the mean, that d_logit and the row's d_hidden NaN and reads
///          nothing out of bounds.
/// Errors   ShapeError if the extents disagree, C < 1, and for E above 8192; ConfigError unless term_weight
///          is finite. N == 0: mean_loss and count become 0.
/// Accuracy within kBinaryChoicesTolerance and kBinaryChoicesGradientTolerance of the oracle for
///          |hidden| ≤ 1, |weight| ≤ 4 / √E and a scale of at most 1. Sums of a row have a fixed order on
///          each device: repeats bit for bit, with any number of threads.
/// Memory   reads hidden once, and the row of weight of each choice once: a row of hidden, its gradient
///          and one of weight lie in registers (on the CPU, in the first-level cache) until it is done.
///          Nothing grows with V.
/// Source   Mikolov, Sutskever, Chen, Corrado & Dean 2013, arXiv:1310.4546, equations 3 and 4.
template <class T>
struct BinaryChoices {
  View<const T, 2> hidden;                      ///< [N, E]
  View<const T, 2> weight;                      ///< [V, E]
  View<const std::int32_t, 2> choice;           ///< [N, C]
  View<const std::int32_t, 2> answer;           ///< [N, C]
  View<const Accumulator<T>, 1> denominator{};  ///< [1] may be absent
  bool gradients_of_sum = false;
  float term_weight = 1;              ///< scales the gradients alone
  View<Accumulator<T>, 1> loss;       ///< [N]    out: nats
  View<Accumulator<T>, 1> mean_loss;  ///< [1]    out: nats per unit of denominator
  View<std::int32_t, 1> count;        ///< [1]    out
  View<Accumulator<T>, 2> d_logit{};  ///< [N, C] out, may be absent
  Gradient<T, 2> d_hidden{};          ///< [N, E] out, may be absent
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  /// On the device, once count is written.
  constexpr Accumulator<T> divisor() const {
    return denominator.present() ? denominator.data[0] : static_cast<Accumulator<T>>(count.data[0]);
  }
  constexpr Accumulator<T> scale() const {
    const auto whole = static_cast<Accumulator<T>>(term_weight);
    if (gradients_of_sum) return whole;
    const Accumulator<T> by = divisor();
    return by == 0 ? Accumulator<T>{0} : whole / by;
  }
};

inline constexpr std::int64_t kMostBinaryChoiceColumns = 8192;

inline constexpr Tolerances kBinaryChoicesTolerance{
    .f32 = {.absolute = 5e-7, .relative = 5e-7, .worst = 0.4},
    .bf16 = {.absolute = 5e-7, .relative = 5e-7, .worst = 0.4}};
inline constexpr Tolerances kBinaryChoicesGradientTolerance{
    .f32 = {.absolute = 5e-7, .relative = 5e-7, .worst = 0.55},
    .bf16 = {.absolute = 2e-6, .relative = 0x1p-8, .worst = 0.998}};

}  // namespace carousel
