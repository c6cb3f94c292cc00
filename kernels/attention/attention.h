#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention/heads.h"
#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/random.h"
#include "kernels/common/tolerance.h"

namespace carousel {

/// Attention of A heads of width D. With keys n[b] = min(max(length[b], 0), Tk), or Tk where length
/// is absent, for each row b, head a and query t, over the keys s < n[b] that rule lets t see:
///
///     z[t,s] = scale·Σ_d q[t,d]·k[s,d] + bias[a,t,s]
///     lse[t] = log Σ_s exp z[t,s],    weight[t,s] = exp(z[t,s] − lse[t])
///     y[t,d] = Σ_s mask[t,s]·weight[t,s]·v[s,d],    mask[t,s] = [kept] / (1 − drop_probability)
///
/// Whether (b, a, t, s) is kept is dropout_keeps(random, step, ((b·A + a)·Tq + t)·Tk + s, drop_probability).
/// Queries and keys are numbered from 0, so that causal attention sees s ≤ t also where Tq ≠ Tk.
/// The bias is a constant, the same for all rows b. With −∞ where query t must not look it is a mask.
///
/// Values   a query that sees no key gives y = 0 and lse = −∞. Keys and values at s ≥ n[b] may hold
///          anything, NaN too, and are not used. Any other NaN of a row and head makes all queries NaN that
///          see it, and may do so to others of that row and head. A score of −∞ is a weight of 0, and a
///          query that has no other is one that sees no key. The bias of a key that a query does not see
///          is not used; of one that it does see, +∞ or NaN make the query NaN.
/// Errors   ShapeError if extents disagree or D is not in [1, 256]; ConfigError if kv_heads does not
///          divide heads, for a window without causal or a negative one, or unless
///          0 ≤ drop_probability < 1. B == 0 or Tq == 0 does nothing; Tk == 0 gives y = 0.
/// Accuracy within kAttentionForwardTolerance for |q|, |k|, |v| ≤ 1 and a bias in [−1, 1] or −∞. Sums are
///          in float and in an order that the extents fix: equal bit for bit for every number of
///          threads. Where bf16 is multiplied as it is, on CUDA and by AMX, weights are rounded to it
///          before they meet v.
/// Memory   never holds Tq × Tk: a tile of the scores at a time, and O(Tk) per running thread on the
///          CPU. Reads k and v once for each tile of queries, skips tiles that no query sees by rule or
///          length, writes y once. The bias is read for each row and head, also where the heads share
///          it. `weights`, for plots, is the exception: B·A·Tq·Tk elements more, and as much time
///          again; it holds weight, before dropout, and 0 where a query does not look.
/// Source   Vaswani et al. 2017, arXiv:1706.03762, section 3.2; Milakov & Gimelshein 2018,
///          arXiv:1805.02867 (the running maximum and sum); Dao et al. 2022, arXiv:2205.14135 (tiles,
///          and recomputation backwards); Shazeer 2019, arXiv:1911.02150, and Ainslie et al. 2023,
///          arXiv:2305.13245 (heads that share keys); Beltagy et al. 2020, arXiv:2004.05150 (window);
///          Raffel et al. 2020, arXiv:1910.10683, section 2.1, and Press et al. 2022, arXiv:2108.12409
///          (a bias of positions).
template <class T>
struct AttentionForward {
  HeadRows<const T> q;     ///< [Tq, B, A·D]
  HeadRows<const T> k, v;  ///< [Tk, B, Akv·D]
  AttentionRule rule;
  View<const std::int32_t, 1> length{};  ///< [B] keys of each row; absent: Tk each
  View<const Accumulator<T>, 3> bias{};  ///< [A or 1, Tq, Tk] of the scores; absent: 0
  float drop_probability = 0;            ///< of a weight
  RandomSource random{};                 ///< with its step on the device, if drop_probability > 0
  bool tf32 = false;                  ///< on CUDA: float products may round their factors to tf32
  HeadRows<T> y;                      ///< [Tq, B, A·D] out
  View<Accumulator<T>, 3> lse{};      ///< [B, A, Tq] out: for the backward pass; may be absent
  View<Accumulator<T>, 4> weights{};  ///< [B, A, Tq, Tk] out, on request
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

/// The gradients, given d_y = ∂L/∂y and the forward pass's y and lse. The weights are computed again,
/// with d_weight[t,s] = mask[t,s]·Σ_d d_y[t,d]·v[s,d] and delta[t] = Σ_d d_y[t,d]·y[t,d]:
///
///     d_z[t,s] = weight[t,s]·(d_weight[t,s] − delta[t])
///     d_q[t] (+)= scale·Σ_s d_z[t,s]·k[s]
///     d_k[s] (+)= scale·Σ_t d_z[t,s]·q[t],    d_v[s] (+)= Σ_t mask[t,s]·weight[t,s]·d_y[t]
///
/// where the sums of d_k and d_v are also over the query heads that share the key head. There is no
/// gradient of the bias.
///
/// Values   those that are absent are not computed. Keys that no query sees get gradient 0, among
///          them all s ≥ n[b]; queries that see no key likewise. When accumulating these are left.
///          A NaN or an infinity may make all gradients of its row and key head NaN.
/// Errors   as the forward pass; ShapeError if scratch is too small.
/// Accuracy within kAttentionBackwardTolerance for inputs as above and |d_y| ≤ 1. One loop sums d_q over
///          keys, another d_k and d_v over queries, each in an order that the extents fix: no
///          atomics, equal bit for bit for every number of threads.
/// Memory   never holds Tq × Tk. Scratch is B·A·Tq floats on CUDA; on the CPU a running thread has
///          float copies of q, y and d_y of the heads of a task, those of one row that share keys. The
///          gradients may lie in the same rows, in other columns; of those in one place, d_k is written
///          first, then d_v, then d_q. None may be an input.
template <class T>
struct AttentionBackward {
  HeadRows<const T> q;                   ///< as in the forward pass
  HeadRows<const T> k, v;                ///< as in the forward pass
  AttentionRule rule;                    ///< as in the forward pass
  View<const std::int32_t, 1> length{};  ///< as in the forward pass
  View<const Accumulator<T>, 3> bias{};  ///< as in the forward pass
  float drop_probability = 0;            ///< as in the forward pass
  RandomSource random{};                 ///< as in the forward pass
  bool tf32 = false;
  HeadRows<const T> y;                  ///< [Tq, B, A·D] as the forward pass left it
  View<const Accumulator<T>, 3> lse;    ///< [B, A, Tq] as the forward pass left it
  HeadRows<const T> d_y;                ///< [Tq, B, A·D]
  HeadGradient<T> d_q{}, d_k{}, d_v{};  ///< like q, k, v; out
  View<std::byte, 1> scratch{};         ///< scratch_bytes(device, op), aligned to 4
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
  std::size_t scratch_bytes(const Cpu&) const;
  std::size_t scratch_bytes(const Cuda&) const;
};

inline constexpr Tolerances kAttentionForwardTolerance{
    .f32 = {.absolute = 1e-6, .relative = 1e-6, .worst = 0.25},
    .bf16 = {.absolute = 4e-3, .relative = 0x1p-7, .worst = 0.75}};
inline constexpr Tolerances kAttentionBackwardTolerance{
    .f32 = {.absolute = 4e-6, .relative = 4e-6, .worst = 0.2},
    .bf16 = {.absolute = 1e-2, .relative = 0x1p-7, .worst = 0.4}};

}  // namespace carousel
