#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/common/bf16.h"
#include "kernels/common/cpu_math.h"

namespace carousel {

/// True where the operands of a product must first be widened: they are stored as bf16, and the
/// CPU multiplies floats.
template <class T>
inline constexpr bool kWidened = !std::is_same_v<T, Accumulator<T>>;

/// One step of one row of the batch, all H units. Pointers are the rows' first elements; a term
/// that is zero points to zeros, so that the loops have no branches. simdlen asks for full AVX-512
/// vectors, which gcc's default tuning avoids: half the time on Zen 5.
template <class T>
struct LstmRowForward {
  std::int64_t width = 0;                     ///< H
  T* gates = nullptr;                         ///< [4H] in: W_ih·x; out: i, f, g, o
  const Accumulator<T>* recurrent = nullptr;  ///< [4H] W_hh·ĥ
  const Accumulator<T>* bias = nullptr;       ///< [4H]
  const Accumulator<T>* c_before = nullptr;   ///< [H]  ĉ
  Accumulator<T>* c = nullptr;                ///< [H]  out
  T* h = nullptr;                             ///< [H]  out
  Accumulator<T>* h_wide = nullptr;           ///< [H]  out, if kWidened: the stored h

  void run() const {
    using Acc = Accumulator<T>;
    const std::int64_t n = width;
    const auto pre_activation = [this](std::int64_t k) {
      return (static_cast<Acc>(gates[k]) + recurrent[k]) + bias[k];
    };
#pragma omp simd simdlen(16)
    for (std::int64_t j = 0; j < n; ++j) {
      const Acc i = cpu_sigmoid(pre_activation(j)), f = cpu_sigmoid(pre_activation(n + j));
      const Acc g = cpu_tanh(pre_activation(2 * n + j)), o = cpu_sigmoid(pre_activation(3 * n + j));
      const Acc cell = f * c_before[j] + i * g;
      const T hidden = static_cast<T>(o * cpu_tanh(cell));
      gates[j] = static_cast<T>(i);
      gates[n + j] = static_cast<T>(f);
      gates[2 * n + j] = static_cast<T>(g);
      gates[3 * n + j] = static_cast<T>(o);
      c[j] = cell;
      h[j] = hidden;
      if constexpr (kWidened<T>) h_wide[j] = static_cast<Acc>(hidden);
    }
  }
};

template <class T>
struct LstmRowBackward {
  std::int64_t width = 0;                         ///< H
  T* gates = nullptr;                             ///< [4H] in: i, f, g, o; out: δa
  Accumulator<T>* gates_wide = nullptr;           ///< [4H] out, if kWidened: the stored δa
  const Accumulator<T>* c = nullptr;              ///< [H]
  const Accumulator<T>* c_before = nullptr;       ///< [H]  ĉ
  const T* d_h = nullptr;                         ///< [H]
  const Accumulator<T>* d_h_recurrent = nullptr;  ///< [H]  W_hhᵀ·δa of the next step
  const Accumulator<T>* d_c_next = nullptr;       ///< [H]  f ∘ δc of the next step
  Accumulator<T>* d_c_before = nullptr;           ///< [H]  out: f ∘ δc of this one

  void run() const {
    using Acc = Accumulator<T>;
    const std::int64_t n = width;
    const auto store = [this](std::int64_t k, Acc value) {
      const T rounded = static_cast<T>(value);
      gates[k] = rounded;
      if constexpr (kWidened<T>) gates_wide[k] = static_cast<Acc>(rounded);
    };
#pragma omp simd simdlen(16)
    for (std::int64_t j = 0; j < n; ++j) {
      const Acc i = gates[j], f = gates[n + j], g = gates[2 * n + j], o = gates[3 * n + j];
      const Acc tanh_c = cpu_tanh(c[j]);
      const Acc d_hidden = static_cast<Acc>(d_h[j]) + d_h_recurrent[j];
      const Acc d_cell = d_hidden * o * (1 - tanh_c * tanh_c) + d_c_next[j];
      store(j, d_cell * g * (i * (1 - i)));
      store(n + j, d_cell * c_before[j] * (f * (1 - f)));
      store(2 * n + j, d_cell * i * (1 - g * g));
      store(3 * n + j, d_hidden * tanh_c * (o * (1 - o)));
      d_c_before[j] = d_cell * f;
    }
  }
};

}  // namespace carousel
