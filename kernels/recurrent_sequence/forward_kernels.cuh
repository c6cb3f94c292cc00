#pragma once

#include "kernels/recurrent_sequence/places.cuh"

namespace carousel {

/// The buffers of a forward pass, in scratch.
template <class T>
struct ForwardParts {
  float* recurrent;  ///< [B, gates of the phase · H] W_hh·operand, or null where that is 0
  T* h;              ///< [B, H] each row's last state, or null where all rows have all steps
};

template <class Cell, int phase, class T>
__global__ void recurrent_sequence_forward_kernel(
    const __grid_constant__ RecurrentSequenceForward<T> op,
    const __grid_constant__ ForwardParts<T> parts, const std::int64_t t) {
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int N = kVector<T>, G = cell.gates, S = cell.states, P = cell.parameters;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int first_split = cell.first_split(), split = cell.split, saved = cell.saved();
  constexpr bool is_last = phase + 1 == cell.phases;
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = op.h.extent[2];
  for_places<T>(batch, width, [&](Place place) {
    const std::int64_t n = t * batch + place.row;
    const RowSteps row(op, place.row);
    Unit<Cell, float> u[N];
    float x[N], y[N];
    if (!row.has(t)) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = 0.0F;
#pragma unroll
      for (int k = first; k < end; ++k) store_units(op.gates.data, n * G + k, width, place, x);
#pragma unroll
      for (int s = 1; s < S; ++s) store_units(op.state[s - 1].data, n, width, place, x);
#pragma unroll
      for (int k = 0; k < saved; ++k)
        store_units(op.saved.data, k * steps * batch + n, width, place, x);
      return store_units(op.h.data, n, width, place, x);
    }
    // A product of a later phase counts at a row's first step too: its operand is this step's own.
    const bool starts = resets(op, t, place.row) || (t == row.begin && !op.h0.present());
    const float* const recurrent = phase == 0 && starts ? nullptr : parts.recurrent;
#pragma unroll
    for (int k = 0; k < first; ++k) {
      load_units(op.gates.data, n * G + k, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].gate[k] = x[i];
    }
#pragma unroll
    for (int k = first; k < end; ++k) {
      load_units(op.gates.data, n * G + k, width, place, x);
      load_units(recurrent, place.row * (end - first) + (k - first), width, place, y);
      float bias_ih[N], bias_hh[N];
      load_units(op.bias_ih.data, k, width, place, bias_ih);
      load_units(op.bias_hh.data, k, width, place, bias_hh);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (k < first_split) {
          u[i].gate[k] = (x[i] + y[i]) + (bias_ih[i] + bias_hh[i]);
        } else {
          u[i].gate[k] = x[i] + bias_ih[i];
          u[i].recurrent[k < first_split ? 0 : k - first_split] = y[i] + bias_hh[i];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < P; ++k) {
      load_units(op.parameter.data, k, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].parameter[k] = x[i];
    }
    load_before(op, op.h, op.h0, row, t, place, x);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i].before[0] = x[i];
#pragma unroll
    for (int s = 1; s < S; ++s) {
      load_before(op, op.state[s - 1], op.state0[s - 1], row, t, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].before[s] = u[i].after[s] = x[i];
      if (phase == 0) continue;
      load_units(op.state[s - 1].data, n, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].after[s] = x[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) Cell::template forward<DeviceCellMath>(CellPhase<phase>{}, u[i]);
#pragma unroll
    for (int k = first; k < end; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].gate[k];
      store_units(op.gates.data, n * G + k, width, place, x);
    }
#pragma unroll
    for (int s = 1; s < S; ++s) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].after[s];
      store_units(op.state[s - 1].data, n, width, place, x);
    }
#pragma unroll
    for (int k = 0; k < (is_last ? split : 0); ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].recurrent[k];
      store_units(op.saved.data, k * steps * batch + n, width, place, x);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = is_last ? u[i].after[0] : u[i].operand;
    if (!is_last) {
      return store_units(op.saved.data, (split + phase) * steps * batch + n, width, place, x);
    }
    store_units(op.h.data, n, width, place, x);
    if (parts.h != nullptr) store_units(parts.h, place.row, width, place, x);
  });
}

/// A state at each row's end, and at its beginning if `from` [T, B, H] is absent: [B, H].
template <class T, class S>
__global__ void recurrent_sequence_last_state_kernel(
    const __grid_constant__ RecurrentSequenceForward<T> op,
    const __grid_constant__ View<const S, 3> from, const __grid_constant__ View<const S, 2> initial,
    S* to) {
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  for_places<S>(batch, width, [&](Place place) {
    const RowSteps row(op, place.row);
    float x[kVector<S>];
    if (from.present() && !row.is_empty()) {
      load_units(from.data, (row.end - 1) * batch + place.row, width, place, x);
    } else {
      load_units(initial.data, place.row, width, place, x);
    }
    store_units(to, place.row, width, place, x);
  });
}

}  // namespace carousel
