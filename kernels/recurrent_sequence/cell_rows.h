#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/cpu_math.h"
#include "kernels/recurrent_sequence/cell.h"
#include "kernels/recurrent_sequence/options.h"

// The CPU's pointwise loops over the H units of one row at one step. They become vector code, which
// tests/kernels/vector_code_test.py checks: bf16 passes through its bits, and what a unit holds lies
// in one Unit, whose arrays have constant sizes. simdlen asks for full AVX-512 vectors, which gcc's
// default tuning avoids: half the time on Zen 5.
namespace carousel {

/// Units per turn of the vector code: a full vector of the narrowest type in the loop.
template <class T>
inline constexpr int kLanes = sizeof(T) == 2 ? 32 : 16;

struct CpuCellMath {
  template <class R>
  static constexpr R sigmoid(R x) {
    return cpu_sigmoid(x);
  }
  template <class R>
  static constexpr R tanh(R x) {
    return cpu_tanh(x);
  }
  template <class R>
  static constexpr R exp(R x) {
    return cpu_exp(x);
  }
  template <class R>
  static constexpr R log_sigmoid(R x) {
    return cpu_log_sigmoid(x);
  }
};

namespace cell_rows {
template <class T>
inline T widened(const T* from) {
  return *from;
}
inline float widened(const bf16* from) { return bf16::widened(from->bits); }

/// Stores, and returns the stored value.
template <class T>
inline T store(T* to, T value) {
  return *to = value;
}
inline float store(bf16* to, float value) { return bf16::widened(to->bits = bf16::rounded(value)); }

/// Within ±limit. NaN stays NaN.
template <class R>
inline R bounded(R value, R limit) {
  return value > limit ? limit : value < -limit ? -limit : value;
}
}  // namespace cell_rows

/// The numbers of RecurrentOptions for one pass. They are used by loops that are instantiated with
/// `regularized`; the others do without, and are faster.
template <class Acc>
struct RowOptions {
  Acc zoneout_h = 0, zoneout_c = 0;  ///< in evaluation: the share of the state before
  Acc candidate_scale = 1, cell_limit = 0, gradient_limit = 0;
};

/// Pointers are the row's first elements. What is absent points to zeros, so that the loops have no
/// branches.
template <class T>
struct RowForward {
  using Acc = Accumulator<T>;
  std::int64_t width = 0;               ///< H
  const T* input = nullptr;             ///< [G·H] W_ih·x; may be `gates`
  T* gates = nullptr;                   ///< [G·H] in: of earlier phases; out: of this one
  const Acc* recurrent = nullptr;       ///< [the phase's gates · H] W_hh·operand
  const Acc* bias = nullptr;            ///< [G·H] b_ih + b_hh; b_ih of split gates
  const Acc* recurrent_bias = nullptr;  ///< [split·H] b_hh of split gates
  const Acc* parameter = nullptr;       ///< [parameters·H]
  const T* h_before = nullptr;          ///< [H] ĥ, of a cell that reads it, and for zoneout
  T* h = nullptr;                       ///< [H] out, by the last phase
  std::array<const Acc*, kMostStates - 1> state_before{};  ///< [H] ĉ …
  std::array<Acc*, kMostStates - 1> state{};               ///< [H] out
  std::array<T*, kMostSaved> saved{};                      ///< [H] out; in, if it is normalized
  Acc* link = nullptr;  ///< [H] out: the next phase's operand, if that is normalized first
  const std::uint8_t* mask = nullptr;  ///< [H]
  RowOptions<Acc> options{};
};

/// In: the step's values and the gradients of its states. Out: gradients of pre-activations over
/// the values, and those of the states before.
template <class T>
struct RowBackward {
  using Acc = Accumulator<T>;
  std::int64_t width = 0;
  T* gates = nullptr;              ///< [G·H] in: activations; out: δa
  T* d_recurrent = nullptr;        ///< [the phase's gates · H] out, if it is kept: δu
  const Acc* parameter = nullptr;  ///< [parameters·H]
  Acc* d_parameter = nullptr;      ///< [parameters·H] added to
  const T* h_before = nullptr;     ///< [H] ĥ
  const T* h = nullptr;            ///< [H]
  std::array<const Acc*, kMostStates - 1> state_before{}, state{};  ///< [H] each
  std::array<T*, kMostSaved> saved{};                               ///< [H] in; out: δu
  const T* d_h = nullptr;              ///< [H] of h[t] itself, for the last phase
  const Acc* d_h_product = nullptr;    ///< [H] of h[t], by the products of the step after
  const Acc* product_scale = nullptr;  ///< [H] what that counts, if regularized
  const Acc* d_h_after = nullptr;  ///< [H] of h[t], past those products: of a cell that reads ĥ, or
                                   ///< if regularized
  Acc* d_h_before = nullptr;       ///< [H] out, likewise, of ĥ; between phases, of h
  std::array<const Acc*, kMostStates - 1> d_state_after{};  ///< [H] of c[t] …
  std::array<Acc*, kMostStates - 1> d_state_before{};       ///< [H] out, of ĉ …
  Acc* d_link = nullptr;  ///< [H] of the next phase's operand; out, of this phase's, if normalized
  std::array<Acc*, 2> d_zoned{};  ///< [H] of h, c: what zoneout takes past a cell of several phases
  const std::uint8_t* mask = nullptr;  ///< [H]
  RowOptions<Acc> options{};
};

/// Whether δu is written out for the product of a step, which could not read it in `gates`.
constexpr bool keeps_d_recurrent(const CellInfo& cell) { return cell.phases > 1 || cell.split > 0; }

/// m of s = m ∘ ŝ + (1 − m) ∘ s: drawn, or its mean.
template <class Acc>
inline Acc zoneout_of(std::uint8_t mask, MaskBit bit, Acc mean) {
  return (mask & static_cast<std::uint8_t>(bit)) != 0 ? Acc{1} : mean;
}

template <class Cell, int phase, bool regularized, class T>
void forward_row(const RowForward<T>& given) {
  using cell_rows::store, cell_rows::widened;
  using Acc = Accumulator<T>;
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int lanes = kLanes<T>;
  constexpr int S = cell.states, P = cell.parameters, split = cell.split;
  constexpr int joint = cell.first_split();
  constexpr bool is_last = phase + 1 == cell.phases;
  constexpr bool normalized = cell.is_normalized(phase), links = cell.is_normalized(phase + 1);
  constexpr bool reads_h = cell.reads_h || regularized;
  const RowForward<T> row = given;  // a copy that no store can change
  const std::int64_t n = row.width;
#pragma omp simd simdlen(lanes)
  for (std::int64_t j = 0; j < n; ++j) {
    Unit<Cell, Acc, regularized> u;
    for (int k = 0; k < first; ++k) u.gate[k] = widened(row.gates + k * n + j);
    for (int k = first; k < end; ++k) {
      const auto input = widened(row.input + k * n + j),
                 product = row.recurrent[(k - first) * n + j];
      const auto bias = row.bias[k * n + j];
      if (k < joint) {
        u.gate[k] = (input + product) + bias;
      } else {
        u.gate[k] = input + bias;
        u.recurrent[k - joint] = product + row.recurrent_bias[(k - joint) * n + j];
      }
    }
    for (int k = 0; k < P; ++k) u.parameter[k] = row.parameter[k * n + j];
    if (reads_h) u.before[0] = widened(row.h_before + j);
    for (int k = 1; k < S; ++k) {
      u.before[k] = row.state_before[k - 1][j];
      u.after[k] = phase == 0 ? u.before[k] : row.state[k - 1][j];
    }
    if (normalized) u.operand = widened(row.saved[split + phase - 1] + j);
    if (regularized) {
      const bool dropped = (row.mask[j] & static_cast<std::uint8_t>(MaskBit::candidate)) != 0;
      u.candidate_scale = dropped ? Acc{0} : row.options.candidate_scale;
      u.cell_limit = row.options.cell_limit;
    }
    Cell::template forward<CpuCellMath>(CellPhase<phase>{}, u);
    for (int k = first; k < end; ++k) store(row.gates + k * n + j, u.gate[k]);
    if (is_last) {
      for (int k = 0; k < split; ++k) store(row.saved[k] + j, u.recurrent[k]);
      if (regularized) {
        const Acc m_h = zoneout_of(row.mask[j], MaskBit::zoneout_h, row.options.zoneout_h);
        u.after[0] = m_h * u.before[0] + (1 - m_h) * u.after[0];
        if (cell.gates_memory) {
          const Acc m_c = zoneout_of(row.mask[j], MaskBit::zoneout_c, row.options.zoneout_c);
          u.after[1] = m_c * u.before[1] + (1 - m_c) * u.after[1];
        }
      }
      store(row.h + j, u.after[0]);
    } else if (links) {
      row.link[j] = u.operand;
    } else {
      store(row.saved[split + phase] + j, u.operand);
    }
    for (int k = 1; k < S; ++k) row.state[k - 1][j] = u.after[k];
  }
}

template <class Cell, int phase, bool regularized, class T>
void backward_row(const RowBackward<T>& given) {
  using cell_rows::bounded, cell_rows::store, cell_rows::widened;
  using Acc = Accumulator<T>;
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int lanes = kLanes<T>;
  constexpr int G = cell.gates, S = cell.states, P = cell.parameters;
  constexpr int split = cell.split, joint = cell.first_split();
  constexpr bool is_last = phase + 1 == cell.phases, is_first = phase == 0;
  constexpr bool normalized = cell.is_normalized(phase), zones_c = cell.gates_memory;
  constexpr bool reads_h = cell.reads_h || regularized;
  constexpr bool keeps = keeps_d_recurrent(cell);
  const RowBackward<T> row = given;
  const std::int64_t n = row.width;
#pragma omp simd simdlen(lanes)
  for (std::int64_t j = 0; j < n; ++j) {
    Unit<Cell, Acc, regularized> u;
    for (int k = 0; k < G; ++k) u.gate[k] = widened(row.gates + k * n + j);
    for (int k = 0; k < split; ++k) u.recurrent[k] = widened(row.saved[k] + j);
    for (int k = 0; k < P; ++k) u.parameter[k] = row.parameter[k * n + j];
    u.before[0] = reads_h ? widened(row.h_before + j) : Acc{0};
    u.after[0] = widened(row.h + j);
    if (is_last) {
      const Acc product =
          regularized ? row.d_h_product[j] * row.product_scale[j] : row.d_h_product[j];
      u.d_state[0] = widened(row.d_h + j) + (reads_h ? product + row.d_h_after[j] : product);
    } else {
      u.d_state[0] = reads_h ? row.d_h_before[j] : Acc{0};
      u.operand = row.d_link[j];
    }
    if (normalized) u.operand = widened(row.saved[split + phase - 1] + j);
    for (int k = 1; k < S; ++k) {
      u.before[k] = row.state_before[k - 1][j];
      u.after[k] = row.state[k - 1][j];
      u.d_state[k] = is_last ? row.d_state_after[k - 1][j] : row.d_state_before[k - 1][j];
    }
    Acc zoned_h = 0, zoned_c = 0;
    if (regularized) {
      const bool dropped = (row.mask[j] & static_cast<std::uint8_t>(MaskBit::candidate)) != 0;
      u.candidate_scale = dropped ? Acc{0} : row.options.candidate_scale;
      u.cell_limit = row.options.cell_limit;
      const Acc m_h = zoneout_of(row.mask[j], MaskBit::zoneout_h, row.options.zoneout_h);
      const Acc m_c = zoneout_of(row.mask[j], MaskBit::zoneout_c, row.options.zoneout_c);
      if (is_last) {
        zoned_h = m_h * u.d_state[0];
        u.d_state[0] = (1 - m_h) * u.d_state[0];
        if constexpr (zones_c) {
          zoned_c = m_c * u.d_state[1];
          u.d_state[1] = (1 - m_c) * u.d_state[1];
        }
        if (!is_first) row.d_zoned[0][j] = zoned_h, row.d_zoned[1][j] = zoned_c;
      } else {
        zoned_h = row.d_zoned[0][j], zoned_c = row.d_zoned[1][j];
      }
      if constexpr (requires { Cell::restore(u); }) Cell::restore(u);
    }
    Cell::template backward<CpuCellMath>(CellPhase<phase>{}, u);
    for (int k = 0; k < G; ++k) {
      const bool own = first <= k && k < end;
      if (regularized && own) u.gate[k] = bounded(u.gate[k], row.options.gradient_limit);
      store(row.gates + k * n + j, u.gate[k]);
      if (!own) continue;
      if (k < joint) {
        if (keeps) store(row.d_recurrent + (k - first) * n + j, u.gate[k]);
      } else {
        Acc& d_u = u.recurrent[k - joint];
        if (regularized) d_u = bounded(d_u, row.options.gradient_limit);
        store(row.saved[k - joint] + j, d_u);
        store(row.d_recurrent + (k - first) * n + j, d_u);
      }
    }
    if (normalized) row.d_link[j] = u.operand;
    if (reads_h) {
      const Acc past = cell.reads_h || !is_first ? u.d_state[0] : Acc{0};
      row.d_h_before[j] = is_first ? past + zoned_h : past;
    }
    if constexpr (zones_c)
      u.d_state[1] = regularized && is_first ? u.d_state[1] + zoned_c : u.d_state[1];
    for (int k = 1; k < S; ++k) row.d_state_before[k - 1][j] = u.d_state[k];
    for (int k = 0; k < P; ++k) row.d_parameter[k * n + j] += u.d_parameter[k];
  }
}

/// A cell's loops for values stored as T, without and with options.
template <class T>
struct CellRows {
  using Forward = std::array<void (*)(const RowForward<T>&), kMostPhases>;
  using Backward = std::array<void (*)(const RowBackward<T>&), kMostPhases>;
  std::array<Forward, 2> forward{};
  std::array<Backward, 2> backward{};
};

template <class Cell, class T>
constexpr CellRows<T> cell_rows_of() {
  CellRows<T> rows;
  const auto add = [&]<int phase>(CellPhase<phase>) {
    if constexpr (phase < Cell::kInfo.phases) {
      rows.forward[0][phase] = &forward_row<Cell, phase, false, T>;
      rows.forward[1][phase] = &forward_row<Cell, phase, true, T>;
      rows.backward[0][phase] = &backward_row<Cell, phase, false, T>;
      rows.backward[1][phase] = &backward_row<Cell, phase, true, T>;
    }
  };
  add(CellPhase<0>{}), add(CellPhase<1>{}), add(CellPhase<2>{});
  return rows;
}

}  // namespace carousel
