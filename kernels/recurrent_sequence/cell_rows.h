#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/cpu_math.h"
#include "kernels/recurrent_sequence/cell.h"

// The CPU's pointwise loops over the H units of one row at one step. They become vector code, which
// tests/kernels/vector_code_test.py checks: bf16 passes through its bits, and what a unit holds lies
// in one Unit, whose arrays have constant sizes. simdlen asks for full AVX-512 vectors, which gcc's
// default tuning avoids: half the time on Zen 5.
namespace carousel {

/// True where the operands of a product must first be widened: they are stored as bf16, and the
/// CPU multiplies floats.
template <class T>
inline constexpr bool kWidened = !std::is_same_v<T, Accumulator<T>>;

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
}  // namespace cell_rows

/// Whether δu is written out for the product of a step, which could not read it in `gates`.
template <class T>
constexpr bool keeps_d_recurrent_of(const CellInfo& cell) {
  return kWidened<T> || cell.phases > 1 || cell.split > 0;
}

/// Pointers are the row's first elements. What is absent points to zeros, so that the loops have no
/// branches.
template <class T>
struct RowForward {
  using Acc = Accumulator<T>;
  std::int64_t width = 0;               ///< H
  T* gates = nullptr;                   ///< [G·H] in: W_ih·x, of the phase's gates; out
  const Acc* recurrent = nullptr;       ///< [the phase's gates · H] W_hh·operand
  const Acc* bias = nullptr;            ///< [G·H] b_ih + b_hh; b_ih of split gates
  const Acc* recurrent_bias = nullptr;  ///< [split·H] b_hh of split gates
  const Acc* parameter = nullptr;       ///< [parameters·H]
  const T* h_before = nullptr;          ///< [H] ĥ
  T* h = nullptr;                       ///< [H] out, by the last phase
  std::array<const Acc*, kMostStates - 1> state_before{};  ///< [H] ĉ …
  std::array<Acc*, kMostStates - 1> state{};               ///< [H] out
  std::array<T*, kMostSaved> saved{};                      ///< [H] out
  Acc* operand = nullptr;  ///< [H] out, if kWidened: what the next product reads, h or an operand
};

/// In: the step's values and the gradients of its states. Out: gradients of pre-activations over
/// the values, and those of the states before.
template <class T>
struct RowBackward {
  using Acc = Accumulator<T>;
  std::int64_t width = 0;
  T* gates = nullptr;              ///< [G·H] in: activations; out: δa
  Acc* d_recurrent = nullptr;      ///< [the phase's gates · H] out, if it is kept: δu
  const Acc* parameter = nullptr;  ///< [parameters·H]
  Acc* d_parameter = nullptr;      ///< [parameters·H] added to
  const T* h_before = nullptr;     ///< [H] ĥ
  const T* h = nullptr;            ///< [H]
  std::array<const Acc*, kMostStates - 1> state_before{}, state{};  ///< [H] each
  std::array<T*, kMostSaved> saved{};                               ///< [H] in; out: δu
  const T* d_h = nullptr;          ///< [H] of h[t] itself, for the last phase
  const Acc* d_h_after = nullptr;  ///< [H] of h[t] from what comes after
  Acc* d_h_before = nullptr;       ///< [H] out, of a cell that reads ĥ
  std::array<const Acc*, kMostStates - 1> d_state_after{};  ///< [H] of c[t] …
  std::array<Acc*, kMostStates - 1> d_state_before{};       ///< [H] out, of ĉ …
  const Acc* d_operand = nullptr;                           ///< [H] of the next phase's operand
};

template <class Cell, int phase, class T>
void forward_row(const RowForward<T>& given) {
  using cell_rows::store, cell_rows::widened;
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int S = cell.states, P = cell.parameters, split = cell.split;
  constexpr int joint = cell.first_split();
  constexpr bool is_last = phase + 1 == cell.phases;
  const RowForward<T> row = given;  // a copy that no store can change
  const std::int64_t n = row.width;
#pragma omp simd simdlen(16)
  for (std::int64_t j = 0; j < n; ++j) {
    Unit<Cell, Accumulator<T>> u;
    for (int k = 0; k < first; ++k) u.gate[k] = widened(row.gates + k * n + j);
    for (int k = first; k < end; ++k) {
      const auto input = widened(row.gates + k * n + j),
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
    u.before[0] = widened(row.h_before + j);
    for (int k = 1; k < S; ++k) {
      u.before[k] = row.state_before[k - 1][j];
      u.after[k] = phase == 0 ? u.before[k] : row.state[k - 1][j];
    }
    Cell::template forward<CpuCellMath>(CellPhase<phase>{}, u);
    for (int k = first; k < end; ++k) store(row.gates + k * n + j, u.gate[k]);
    if (is_last) {
      for (int k = 0; k < split; ++k) store(row.saved[k] + j, u.recurrent[k]);
      const auto h = store(row.h + j, u.after[0]);
      if (kWidened<T>) row.operand[j] = h;
    } else {
      const auto operand = store(row.saved[split + phase] + j, u.operand);
      if (kWidened<T>) row.operand[j] = operand;
    }
    for (int k = 1; k < S; ++k) row.state[k - 1][j] = u.after[k];
  }
}

template <class Cell, int phase, class T>
void backward_row(const RowBackward<T>& given) {
  using cell_rows::store, cell_rows::widened;
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int G = cell.gates, S = cell.states, P = cell.parameters;
  constexpr int split = cell.split, joint = cell.first_split();
  constexpr bool is_last = phase + 1 == cell.phases;
  const RowBackward<T> row = given;
  const std::int64_t n = row.width;
  constexpr bool reads_h = cell.reads_h, keeps_d_recurrent = keeps_d_recurrent_of<T>(cell);
#pragma omp simd simdlen(16)
  for (std::int64_t j = 0; j < n; ++j) {
    Unit<Cell, Accumulator<T>> u;
    for (int k = 0; k < G; ++k) u.gate[k] = widened(row.gates + k * n + j);
    for (int k = 0; k < split; ++k) u.recurrent[k] = widened(row.saved[k] + j);
    for (int k = 0; k < P; ++k) u.parameter[k] = row.parameter[k * n + j];
    u.before[0] = widened(row.h_before + j);
    u.after[0] = widened(row.h + j);
    u.d_state[0] = is_last ? widened(row.d_h + j) + row.d_h_after[j] : row.d_h_before[j];
    for (int k = 1; k < S; ++k) {
      u.before[k] = row.state_before[k - 1][j];
      u.after[k] = row.state[k - 1][j];
      u.d_state[k] = is_last ? row.d_state_after[k - 1][j] : row.d_state_before[k - 1][j];
    }
    if (!is_last) u.operand = row.d_operand[j];
    Cell::template backward<CpuCellMath>(CellPhase<phase>{}, u);
    for (int k = 0; k < G; ++k) {
      const auto d = store(row.gates + k * n + j, u.gate[k]);
      if (k < first || k >= end) continue;
      if (k < joint) {
        if (keeps_d_recurrent) row.d_recurrent[(k - first) * n + j] = d;
      } else {
        row.d_recurrent[(k - first) * n + j] =
            store(row.saved[k - joint] + j, u.recurrent[k - joint]);
      }
    }
    if (reads_h) row.d_h_before[j] = u.d_state[0];
    for (int k = 1; k < S; ++k) row.d_state_before[k - 1][j] = u.d_state[k];
    for (int k = 0; k < P; ++k) row.d_parameter[k * n + j] += u.d_parameter[k];
  }
}

/// A cell's loops for values stored as T.
template <class T>
struct CellRows {
  std::array<void (*)(const RowForward<T>&), kMostPhases> forward{};
  std::array<void (*)(const RowBackward<T>&), kMostPhases> backward{};
};

template <class Cell, class T>
constexpr CellRows<T> cell_rows_of() {
  CellRows<T> rows;
  const auto add = [&]<int phase>(CellPhase<phase>) {
    if constexpr (phase < Cell::kInfo.phases) {
      rows.forward[phase] = &forward_row<Cell, phase, T>;
      rows.backward[phase] = &backward_row<Cell, phase, T>;
    }
  };
  add(CellPhase<0>{}), add(CellPhase<1>{}), add(CellPhase<2>{});
  return rows;
}

}  // namespace carousel
