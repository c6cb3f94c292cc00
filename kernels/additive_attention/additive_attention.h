#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/tolerance.h"
#include "kernels/common/view.h"

namespace carousel {

/// Attention with additive scores. With keys n[b] = min(max(length[b], 0), S), or S where length is
/// absent, for each row b and query t, over the keys s < n[b]:
///
///     z[b,t,s] = Σ_h score[h]·tanh(q[t,b,h] + k[s,b,h])
///     weights[b,t,s] = exp(z[b,t,s]) / Σ_r exp(z[b,t,r]),    0 for s ≥ n[b]
///     y[t,b,d] = Σ_s weights[b,t,s]·v[s,b,d]
///
/// Values   a row without keys gives y = 0. Keys and values at s ≥ n[b] may hold anything, NaN too, and
///          are not used. A NaN in a query, in a key that it sees or in score makes its y NaN.
/// Errors   ShapeError if extents disagree. B == 0 or T == 0 does nothing; S == 0 gives y = 0.
/// Accuracy within kAdditiveAttentionForwardTolerance for |q|, |k|, |v|, |score| ≤ 1 and H ≤ 320. Sums
///          are in float and in an order that the extents fix: equal bit for bit for every number of
///          threads.
/// Memory   never holds the tanh of T·S·B·H sums. Reads k and v of a row for each of its queries,
///          writes y and the weights once.
/// Source   Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, section A.1.2; Luong, Pham & Manning 2015,
///          arXiv:1508.04025, section 3.1, score "concat": W_a [h; m] is the sum of two products.
template <class T>
struct AdditiveAttentionForward {
  View<const T, 3> q;                    ///< [T, B, H] queries, projected
  View<const T, 3> k;                    ///< [S, B, H] keys, projected
  View<const T, 3> v;                    ///< [S, B, D] values
  View<const T, 1> score;                ///< [H]
  View<const std::int32_t, 1> length{};  ///< [B] keys of each row; absent: S each
  View<T, 3> y;                          ///< [T, B, D] out
  View<Accumulator<T>, 3> weights;       ///< [B, T, S] out: for the backward pass, and for plots
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradients, given d_y = ∂L/∂y and the forward pass's weights. With e = tanh(q[t,b,h] + k[s,b,h]),
/// computed again, d_weight[b,t,s] = Σ_d d_y[t,b,d]·v[s,b,d] and
/// d_z[b,t,s] = weights[b,t,s]·(d_weight[b,t,s] − Σ_r weights[b,t,r]·d_weight[b,t,r]):
///
///     d_k[s,b,h] (+)= score[h]·Σ_t d_z[b,t,s]·(1 − e²)
///     d_v[s,b,d] (+)= Σ_t weights[b,t,s]·d_y[t,b,d]
///     d_q[t,b,h] (+)= score[h]·Σ_s d_z[b,t,s]·(1 − e²)
///     d_score[h] (+)= Σ_b,t,s d_z[b,t,s]·e
///
/// Values   gradients that are absent are not computed. Those of keys and values at s ≥ n[b] are 0; when
///          accumulating these are left.
/// Errors   as the forward pass; ShapeError if scratch is too small.
/// Accuracy within kAdditiveAttentionBackwardTolerance for |q|, |k|, |v|, |score|, |d_y| ≤ 1 and
///          H ≤ 320. Each sum has an order that the extents fix: no atomics, equal bit for bit for
///          every number of threads.
/// Memory   scratch has, on the CPU, B·H floats for d_score; on CUDA B·T·S, and for d_score S·B·H and
///          column_sum_scratch(S·B, H). On the CPU a running thread has float copies of a row's
///          queries, d_q and d_y, and T·S scores. Of gradients in one place, d_k is written first, then
///          d_v, then d_q.
template <class T>
struct AdditiveAttentionBackward {
  View<const T, 3> q;                     ///< as in the forward pass
  View<const T, 3> k, v;                  ///< as in the forward pass
  View<const T, 1> score;                 ///< as in the forward pass
  View<const std::int32_t, 1> length{};   ///< as in the forward pass
  View<const Accumulator<T>, 3> weights;  ///< [B, T, S] as the forward pass left it
  View<const T, 3> d_y;                   ///< [T, B, D]
  Gradient<T, 3> d_q{}, d_k{}, d_v{};     ///< like q, k, v; out
  Gradient<Accumulator<T>, 1> d_score{};  ///< [H] out
  View<std::byte, 1> scratch{};           ///< scratch_bytes(device, op), aligned to 256
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;
};

/// n[b]: how many of `keys` a row has.
constexpr std::int64_t additive_keys(View<const std::int32_t, 1> length, std::int64_t row,
                                     std::int64_t keys) {
  if (!length.present()) return keys;
  const std::int64_t own = length(row);
  return own < 0 ? 0 : own < keys ? own : keys;
}

inline constexpr Tolerances kAdditiveAttentionForwardTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.25},
    .bf16 = {.absolute = 1e-6, .relative = 0x1p-8, .worst = 0.98}};
inline constexpr Tolerances kAdditiveAttentionBackwardTolerance{
    .f32 = {.absolute = 2e-6, .relative = 2e-6, .worst = 0.25},
    .bf16 = {.absolute = 2e-6, .relative = 0x1p-8, .worst = 1}};

}  // namespace carousel
