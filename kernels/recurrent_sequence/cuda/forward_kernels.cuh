#pragma once

#include "kernels/recurrent_sequence/cuda/regularizers.cuh"

namespace carousel {

/// The buffers of a forward pass, in scratch, and its numbers.
template <class T>
struct ForwardParts {
  std::int64_t width;  ///< H
  CellOptions options;
  float* recurrent;  ///< [B, gates of the phase · H] W_hh·operand, or null where that is 0
  T* operand;        ///< [B, P] what phase 0 of the next step multiplies, or null where that is h
  float* link;       ///< [B, H] a normalized phase's operand before that, or null
  float* factors;    ///< [B, P] of variational dropout, or null
};

/// What phase 0 of the row's step `next` multiplies, of the h before it.
template <int N, class T>
__device__ void store_operand(const RecurrentSequenceForward<T>& op, const ForwardParts<T>& parts,
                              const RowSteps& row, std::int64_t next, Place place, float (&h)[N]) {
  if (parts.operand == nullptr) return;
#pragma unroll
  for (float& x : h) x = static_cast<float>(static_cast<T>(x));
  if (row.has(next) && row.is_cut(op, next)) load_start<T>(op.start[0], place, h);
  drop_out(parts.factors, op.h.extent[2], place, h);
  store_units(parts.operand, place.row, op.h.extent[2], place, h);
}

/// Stores h[t] after zoneout, and what the next step multiplies.
template <int N, class T>
__device__ void finish_h(const RecurrentSequenceForward<T>& op, const ForwardParts<T>& parts,
                         const RowSteps& row, std::int64_t t, Place place, float (&h)[N]) {
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  if (parts.options.zones_h) {
    float before[N];
    unsigned mask[N];
    load_before(op, op.h, op.h0, op.start[0], row, t, place, before);
    load_mask(op, parts.options.draws, t, width, place, mask);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float m = zoneout_of(mask[i], MaskBit::zoneout_h, parts.options.zoneout_h);
      h[i] = m * before[i] + (1.0F - m) * h[i];
    }
  }
  store_units(op.h.data, t * batch + place.row, width, place, h);
  store_operand(op, parts, row, row.after(t), place, h);
}

/// One vector of units outside its row's range: zeros.
template <class Cell, class T>
__device__ void clear_step(const RecurrentSequenceForward<T>& op, const ForwardParts<T>& parts,
                           std::int64_t t, Place place) {
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int N = kVector<T>, G = cell.gates, S = cell.states, saved = cell.saved();
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = parts.width;
  const std::int64_t n = t * batch + place.row;
  const bool projects = op.weight_hr.present();
  const float zero[N] = {};
#pragma unroll
  for (int k = 0; k < G; ++k) store_units(op.gates.data, n * G + k, width, place, zero);
#pragma unroll
  for (int s = 1; s < S; ++s) store_units(op.state[s - 1].data, n, width, place, zero);
  for (int k = 0; k < saved + (projects ? 1 : 0); ++k)
    store_units(op.saved.data, k * steps * batch + n, width, place, zero);
  if (!projects) store_units(op.h.data, n, width, place, zero);
  if (!parts.options.draws) return;
  for (int i = 0; i < N && i < place.count; ++i) op.mask.data[n * width + place.unit + i] = 0;
}

/// A thread takes one vector of units of one row at step t: the cell's part `phase`, after the
/// product and the normalization that it needs.
template <class Cell, int phase, class T>
__global__ void recurrent_sequence_forward_kernel(
    const __grid_constant__ RecurrentSequenceForward<T> op,
    const __grid_constant__ ForwardParts<T> parts, const std::int64_t t) {
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int N = kVector<T>, G = cell.gates, S = cell.states, P = cell.parameters;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int first_split = cell.first_split(), split = cell.split;
  constexpr bool is_last = phase + 1 == cell.phases, links = cell.is_normalized(phase + 1);
  static_assert(!cell.is_normalized(phase) || is_last, "its operand has two gradients otherwise");
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = parts.width;
  const CellOptions& options = parts.options;
  for_places<T>(batch, width, [&](Place place) {
    const std::int64_t n = t * batch + place.row;
    const RowSteps row(op, place.row);
    if (!row.has(t)) {
      if (phase == 0) clear_step<Cell>(op, parts, t, place);
      return;
    }
    if (phase == 0 && options.draws) draw_mask<N>(op, t, width, place);
    Unit<Cell, float, true> u[N];
    float x[N], y[N];
    set_options(op, options, t, width, place, u);
    // A product of a later phase counts at a row's first step too: its operand is this step's own.
    const bool multiplied = phase > 0 || has_h_before(op, row, t);
    const float* const recurrent = multiplied ? parts.recurrent : nullptr;
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
    if (cell.reads_h) {
      load_before(op, op.h, op.h0, op.start[0], row, t, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].before[0] = x[i];
    }
#pragma unroll
    for (int s = 1; s < S; ++s) {
      load_before(op, op.state[s - 1], op.state0[s - 1], op.start[s], row, t, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].before[s] = u[i].after[s] = x[i];
      if (phase == 0) continue;
      load_units(op.state[s - 1].data, n, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].after[s] = x[i];
    }
    if (cell.is_normalized(phase)) {
      load_units(op.saved.data, (split + phase - 1) * steps * batch + n, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].operand = x[i];
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
    for (int k = 0; k < (is_last ? split : 0); ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].recurrent[k];
      store_units(op.saved.data, k * steps * batch + n, width, place, x);
    }
#pragma unroll
    for (int s = 1; s < S; ++s) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].after[s];
      if (is_last && s == 1 && cell.gates_memory && options.zones_c) {
        unsigned mask[N];
        load_mask(op, options.draws, t, width, place, mask);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float m = zoneout_of(mask[i], MaskBit::zoneout_c, options.zoneout_c);
          x[i] = m * u[i].before[s] + (1.0F - m) * x[i];
        }
      }
      store_units(op.state[s - 1].data, n, width, place, x);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = is_last ? u[i].after[0] : u[i].operand;
    if (links) {
      store_units(parts.link, place.row, width, place, x);
    } else if (!is_last) {
      store_units(op.saved.data, (split + phase) * steps * batch + n, width, place, x);
    } else if (op.weight_hr.present()) {  // recurrent_sequence_projected_kernel does the rest
      store_units(op.saved.data, cell.saved() * steps * batch + n, width, place, x);
    } else {
      finish_h(op, parts, row, t, place, x);
    }
  });
}

/// A thread takes one vector of units of one row of h[t], where a projection has written it.
template <class T>
__global__ void recurrent_sequence_projected_kernel(
    const __grid_constant__ RecurrentSequenceForward<T> op,
    const __grid_constant__ ForwardParts<T> parts, const std::int64_t t) {
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  for_places<T>(batch, width, [&](Place place) {
    const RowSteps row(op, place.row);
    float x[kVector<T>];
    if (!row.has(t)) return;
    load_units(op.h.data, t * batch + place.row, width, place, x);
    finish_h(op, parts, row, t, place, x);
  });
}

/// A thread takes one vector of units of one row: what phase 0 of the row's first step multiplies.
template <class T>
__global__ void recurrent_sequence_first_operand_kernel(
    const __grid_constant__ RecurrentSequenceForward<T> op,
    const __grid_constant__ ForwardParts<T> parts) {
  for_places<T>(op.h.extent[1], op.h.extent[2], [&](Place place) {
    const RowSteps row(op, place.row);
    float x[kVector<T>];
    load_initial(op, op.h0, op.start[0], place, x);
    store_operand(op, parts, row, row.first(), place, x);
  });
}

/// A state [B, width] at each row's end, which is its beginning where the row has no steps.
template <class T, class S>
__global__ void recurrent_sequence_last_state_kernel(
    const __grid_constant__ RecurrentSequenceForward<T> op,
    const __grid_constant__ View<const S, 3> from, const __grid_constant__ View<const S, 2> initial,
    const __grid_constant__ View<const float, 1> start, S* to) {
  const auto [steps, batch, width] = from.extent;
  for_places<S>(batch, width, [&, width = width, batch = batch](Place place) {
    const RowSteps row(op, place.row);
    float x[kVector<S>];
    if (row.is_empty()) {
      load_initial(op, initial, start, place, x);
    } else {
      load_units(from.data, row.last() * batch + place.row, width, place, x);
    }
    store_units(to, place.row, width, place, x);
  });
}

}  // namespace carousel
