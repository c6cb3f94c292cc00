#pragma once

#include "kernels/recurrent_sequence/cuda/regularizers.cuh"

namespace carousel {

/// The gradient of a state on its way from a step to the one before.
struct StateFlow {
  float* past = nullptr;     ///< [B, width] what goes past the products, or all of it
  float* product = nullptr;  ///< [B, width] what comes out of them, or null
  float* factors = nullptr;  ///< [B, width] of variational dropout, by which that is multiplied
  float* start = nullptr;    ///< [B, width] sum of what reaches `start`, or null
};

/// The buffers of a backward pass, in scratch, and its numbers.
template <class T>
struct BackwardParts {
  std::int64_t width;  ///< H
  CellOptions options;
  StateFlow h;                                   ///< [B, P]
  std::array<StateFlow, kMostStates - 1> state;  ///< [B, H]
  std::array<float*, 2> zoned;                   ///< [B, H] what zoneout takes past the cell: h, c
  T* d_h;                                        ///< [T, B, P] δh of a projection, or null
  float* d_m;                                    ///< [B, H] δm of a projection, or null
  T* d_recurrent;  ///< [B, gates of the phase · H] δu, or null where that is in one matrix already
  float* d_operand;    ///< [B, H], of a cell of several phases
  float* d_parameter;  ///< [B, parameters·H]
  float* d_gain;       ///< [B, 2·G·H], or null
  T* h_before;         ///< [T, B, P] the operands of phase 0, or null where they are h
  T* x;                ///< [T, B, I] x without padding, or null
  bool adds_to_d_h;    ///< the product of a step adds to what is there
};

template <int N>
__device__ void load_flow(const StateFlow& flow, std::int64_t width, Place place, float (&to)[N]) {
  load_units(flow.past, place.row, width, place, to);
  if (flow.product == nullptr) return;
  float product[N];
  load_units(flow.product, place.row, width, place, product);
  drop_out(flow.factors, width, place, product);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] += product[i];
}

template <int N>
__device__ void add_units(float* sums, std::int64_t row, std::int64_t width, Place place,
                          const float (&x)[N]) {
  float sum[N];
  load_units(sums, row, width, place, sum);
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] += x[i];
  store_units(sums, row, width, place, sum);
}

/// What flows into a state that leaves step t of a row: from the step after, or from outside behind
/// the last. Behind a reset that is nothing: there it goes to `start`.
template <class Op, class S, int N>
__device__ void take_gradient(const Op& op, const StateFlow& flow, const View<const S, 2>& last,
                              const RowSteps& steps, std::int64_t t, std::int64_t width,
                              Place place, float (&to)[N]) {
  if (t == steps.last()) return load_units(last.data, place.row, width, place, to);
  const bool is_cut = steps.is_cut(op, steps.after(t));
  if (!is_cut || flow.start != nullptr) load_flow(flow, width, place, to);
  if (!is_cut) return;
  if (flow.start != nullptr) add_units(flow.start, place.row, width, place, to);
#pragma unroll
  for (float& x : to) x = 0.0F;
}

/// Keeps the part of a gradient that zoneout takes to the step before; the cell gets the rest.
template <int N>
__device__ void zone_out(const unsigned (&mask)[N], MaskBit bit, float mean, float* zoned,
                         std::int64_t width, Place place, float (&d)[N]) {
  float past[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float m = zoneout_of(mask[i], bit, mean);
    past[i] = m * d[i], d[i] *= 1.0F - m;
  }
  store_units(zoned, place.row, width, place, past);
}

/// One vector of units outside its row's range: gradients of 0.
template <class Cell, int phase, class T>
__device__ void clear_gradients(const RecurrentSequenceBackward<T>& op,
                                const BackwardParts<T>& parts, std::int64_t t, Place place) {
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int N = kVector<T>, G = cell.gates, saved = cell.saved(), own = cell.gates_of(phase);
  constexpr bool is_last = phase + 1 == cell.phases;
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = parts.width;
  const std::int64_t n = t * batch + place.row;
  const float zero[N] = {};
#pragma unroll
  for (int k = 0; k < (is_last ? G : 0); ++k)
    store_units(op.gates.data, n * G + k, width, place, zero);
#pragma unroll
  for (int k = 0; k < (is_last ? saved : 0); ++k)
    store_units(op.saved.data, k * steps * batch + n, width, place, zero);
  if (parts.d_recurrent == nullptr) return;
#pragma unroll
  for (int k = 0; k < own; ++k)
    store_units(parts.d_recurrent, place.row * own + k, width, place, zero);
}

/// A thread takes one vector of units of one row: δh[t] of a projection, which a product turns into
/// δm, and what zoneout of h takes to the step before.
template <class T>
__global__ void recurrent_sequence_output_gradient_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op,
    const __grid_constant__ BackwardParts<T> parts, const std::int64_t t) {
  constexpr int N = kVector<T>;
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  for_places<T>(batch, width, [&](Place place) {
    const RowSteps row(op, place.row);
    const std::int64_t n = t * batch + place.row;
    float x[N] = {}, y[N] = {};
    if (row.has(t)) {
      take_gradient(op, parts.h, op.d_h_last, row, t, width, place, x);
      load_units(op.d_h.data, n, width, place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = y[i] + x[i], y[i] = 0.0F;
      if (parts.options.zones_h) {
        unsigned mask[N];
        load_mask(op, parts.options.draws, t, width, place, mask);
        zone_out(mask, MaskBit::zoneout_h, parts.options.zoneout_h, parts.h.past, width, place, x);
      } else if (parts.adds_to_d_h) {
        store_units(parts.h.past, place.row, width, place, y);
      }
      if (parts.h.product != nullptr) store_units(parts.h.product, place.row, width, place, y);
    }
    store_units(parts.d_h, n, width, place, x);
  });
}

/// A thread takes one vector of units of one row at step t: the gradients of the cell's part
/// `phase`. The product of a step adds to the flow of h, which is cleared for it where the row has
/// the step, and stays where it has not.
template <class Cell, int phase, class T>
__global__ void recurrent_sequence_backward_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op,
    const __grid_constant__ BackwardParts<T> parts, const std::int64_t t) {
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int N = kVector<T>, G = cell.gates, S = cell.states, P = cell.parameters;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int first_split = cell.first_split(), split = cell.split;
  constexpr bool is_last = phase + 1 == cell.phases, reads_h = cell.reads_h;
  constexpr bool reads_c = cell.gates_memory, normalized = cell.is_normalized(phase);
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = parts.width;
  const CellOptions& options = parts.options;
  for_places<T>(batch, width, [&](Place place) {
    const std::int64_t n = t * batch + place.row;
    const RowSteps row(op, place.row);
    if (!row.has(t)) return clear_gradients<Cell, phase>(op, parts, t, place);
    const bool projects = op.weight_hr.present();
    Unit<Cell, float, true> u[N];
    float x[N], y[N];
    set_options(op, options, t, width, place, u);
#pragma unroll
    for (int k = 0; k < G; ++k) {
      load_units(op.gates.data, n * G + k, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].gate[k] = x[i];
    }
#pragma unroll
    for (int k = 0; k < split; ++k) {
      load_units(op.saved.data, k * steps * batch + n, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].recurrent[k] = x[i];
    }
#pragma unroll
    for (int k = 0; k < P; ++k) {
      load_units(op.parameter.data, k, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].parameter[k] = x[i];
    }
    if (reads_h) {
      load_before(op, op.h, op.h0, op.start[0], row, t, place, x);
      load_units(op.h.data, n, width, place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].before[0] = x[i], u[i].after[0] = y[i];
    }
    unsigned mask[N];
    if (is_last && (options.zones_c || options.zones_h)) {
      load_mask(op, options.draws, t, width, place, mask);
    }
    if (projects || !is_last) {  // a cell with a projection hands no gradient of h on
      const float* const d_m = is_last ? parts.d_m : nullptr;
      load_units(projects ? d_m : parts.h.past, place.row, width, place, x);
    } else {
      take_gradient(op, parts.h, op.d_h_last, row, t, width, place, x);
      load_units(op.d_h.data, n, width, place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = y[i] + x[i];
      if (options.zones_h) {
        zone_out(mask, MaskBit::zoneout_h, options.zoneout_h, parts.zoned[0], width, place, x);
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) u[i].d_state[0] = x[i];
    if (!is_last) {
      const bool has_operand = cell.is_normalized(phase + 1) || op.weight_hh.present();
      load_units(has_operand ? parts.d_operand : nullptr, place.row, width, place, y);
    } else if (normalized) {
      load_units(op.saved.data, (split + phase - 1) * steps * batch + n, width, place, y);
    }
    if (!is_last || normalized) {
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].operand = y[i];
    }
#pragma unroll
    for (int s = 1; s < S; ++s) {
      load_before(op, op.state[s - 1], op.state0[s - 1], op.start[s], row, t, place, x);
      load_units(op.state[s - 1].data, n, width, place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].before[s] = x[i], u[i].after[s] = y[i];
      if (is_last) {
        take_gradient(op, parts.state[s - 1], op.d_state_last[s - 1], row, t, width, place, x);
      } else {
        load_units(parts.state[s - 1].past, place.row, width, place, x);
      }
      if (is_last && s == 1 && reads_c && options.zones_c) {
        zone_out(mask, MaskBit::zoneout_c, options.zoneout_c, parts.zoned[1], width, place, x);
      }
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].d_state[s] = x[i];
    }
    if constexpr (requires { Cell::restore(u[0]); }) {
      if (options.zones_c) {
#pragma unroll
        for (int i = 0; i < N; ++i) Cell::restore(u[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) Cell::template backward<DeviceCellMath>(CellPhase<phase>{}, u[i]);
#pragma unroll
    for (int k = 0; k < G; ++k) {
      const bool is_own = first <= k && k < end;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        x[i] = is_own ? bounded(u[i].gate[k], options.gradient_limit) : u[i].gate[k];
      }
      store_units(op.gates.data, n * G + k, width, place, x);
      if (!is_own) continue;
      if (k >= first_split) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          x[i] = bounded(u[i].recurrent[k < first_split ? 0 : k - first_split],
                         options.gradient_limit);
        }
        store_units(op.saved.data, (k - first_split) * steps * batch + n, width, place, x);
      }
      if (parts.d_recurrent != nullptr) {
        store_units(parts.d_recurrent, place.row * (end - first) + (k - first), width, place, x);
      }
    }
#pragma unroll
    for (int s = 1; s < S; ++s) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].d_state[s];
      if (phase == 0 && s == 1 && reads_c && options.zones_c) {
        load_units(parts.zoned[1], place.row, width, place, y);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] += y[i];
      }
      store_units(parts.state[s - 1].past, place.row, width, place, x);
    }
#pragma unroll
    for (int k = 0; k < P; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].d_parameter[k];
      add_units(parts.d_parameter, place.row * P + k, width, place, x);
    }
    if (normalized) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].operand;
      store_units(parts.d_operand, place.row, width, place, x);
    }
    if (!projects && parts.adds_to_d_h) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = reads_h ? u[i].d_state[0] : 0.0F;
      if (phase == 0 && options.zones_h) {
        load_units(parts.zoned[0], place.row, width, place, y);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] += y[i];
      }
      store_units(parts.h.past, place.row, width, place, x);
    }
    if (!projects && phase == 0 && parts.h.product != nullptr) {
#pragma unroll
      for (float& none : x) none = 0.0F;
      store_units(parts.h.product, place.row, width, place, x);
    }
  });
}

}  // namespace carousel
