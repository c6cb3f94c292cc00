#pragma once

#include "kernels/recurrent_sequence/places.cuh"

namespace carousel {

/// The buffers of a backward pass, in scratch.
template <class T>
struct BackwardParts {
  float* d_h;                                   ///< [B, H] of ĥ, from the step after
  std::array<float*, kMostStates - 1> d_state;  ///< [B, H] of ĉ …
  T* d_recurrent;      ///< [B, gates of the phase · H] δu, or null where `gates` holds it
  float* d_operand;    ///< [B, H], of a cell of several phases
  float* d_parameter;  ///< [B, parameters·H]
  T* h_before;         ///< [T, B, H] ĥ, or null where no row resets or is shorter
  T* x;                ///< [T, B, I] x without padding, or null
  bool adds_to_d_h;    ///< the product of a step adds to d_h
};

/// What flows into a state that leaves step t of a row: from the step after, or from outside behind
/// the last.
template <class Op, class T, int N>
__device__ void load_state_gradient(const Op& op, const float* after, const View<const T, 2>& last,
                                    const RowSteps& steps, std::int64_t t, Place place,
                                    float (&to)[N]) {
  const std::int64_t width = op.h.extent[2];
  if (t + 1 >= steps.end) return load_units(last.data, place.row, width, place, to);
  load_units(resets(op, t + 1, place.row) ? nullptr : after, place.row, width, place, to);
}

/// One vector of units outside its row's range: gradients of 0.
template <class Cell, int phase, class T>
__device__ void clear_gradients(const RecurrentSequenceBackward<T>& op,
                                const BackwardParts<T>& parts, std::int64_t t, Place place) {
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int N = kVector<T>, G = cell.gates, saved = cell.saved(), own = cell.gates_of(phase);
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = op.h.extent[2];
  const std::int64_t n = t * batch + place.row;
  float zero[N];
#pragma unroll
  for (int i = 0; i < N; ++i) zero[i] = 0.0F;
#pragma unroll
  for (int k = 0; k < G; ++k) store_units(op.gates.data, n * G + k, width, place, zero);
#pragma unroll
  for (int k = 0; k < saved; ++k)
    store_units(op.saved.data, k * steps * batch + n, width, place, zero);
  if (parts.d_recurrent != nullptr) {
#pragma unroll
    for (int k = 0; k < own; ++k)
      store_units(parts.d_recurrent, place.row * own + k, width, place, zero);
  }
  if (parts.h_before != nullptr) store_units(parts.h_before, n, width, place, zero);
}

template <class Cell, int phase, class T>
__global__ void recurrent_sequence_backward_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op,
    const __grid_constant__ BackwardParts<T> parts, const std::int64_t t) {
  constexpr CellInfo cell = Cell::kInfo;
  constexpr int N = kVector<T>, G = cell.gates, S = cell.states, P = cell.parameters;
  constexpr int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  constexpr int first_split = cell.first_split(), split = cell.split;
  constexpr bool is_last = phase + 1 == cell.phases, reads_h = cell.reads_h;
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = op.h.extent[2];
  for_places<T>(batch, width, [&](Place place) {
    const std::int64_t n = t * batch + place.row;
    const RowSteps row(op, place.row);
    if (!row.has(t)) return clear_gradients<Cell, phase>(op, parts, t, place);
    Unit<Cell, float> u[N];
    float x[N], y[N];
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
    load_before(op, op.h, op.h0, row, t, place, x);
    if (phase == 0 && parts.h_before != nullptr) store_units(parts.h_before, n, width, place, x);
    load_units(op.h.data, n, width, place, y);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i].before[0] = x[i], u[i].after[0] = y[i];
    if (is_last) {
      load_state_gradient(op, parts.d_h, op.d_h_last, row, t, place, x);
      load_units(op.d_h.data, n, width, place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].d_state[0] = y[i] + x[i];
    } else {
      load_units(parts.d_h, place.row, width, place, x);
      load_units(parts.d_operand, place.row, width, place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].d_state[0] = x[i], u[i].operand = y[i];
    }
#pragma unroll
    for (int s = 1; s < S; ++s) {
      load_before(op, op.state[s - 1], op.state0[s - 1], row, t, place, x);
      load_units(op.state[s - 1].data, n, width, place, y);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].before[s] = x[i], u[i].after[s] = y[i];
      if (is_last) {
        load_state_gradient(op, parts.d_state[s - 1], op.d_state_last[s - 1], row, t, place, x);
      } else {
        load_units(parts.d_state[s - 1], place.row, width, place, x);
      }
#pragma unroll
      for (int i = 0; i < N; ++i) u[i].d_state[s] = x[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) Cell::template backward<DeviceCellMath>(CellPhase<phase>{}, u[i]);
#pragma unroll
    for (int k = 0; k < G; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = u[i].gate[k];
      store_units(op.gates.data, n * G + k, width, place, x);
      if (k < first || k >= end) continue;
      if (k >= first_split) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = u[i].recurrent[k < first_split ? 0 : k - first_split];
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
      store_units(parts.d_state[s - 1], place.row, width, place, x);
    }
#pragma unroll
    for (int k = 0; k < P; ++k) {
      load_units(parts.d_parameter, place.row * P + k, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += u[i].d_parameter[k];
      store_units(parts.d_parameter, place.row * P + k, width, place, x);
    }
    if (!parts.adds_to_d_h) return;
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = reads_h ? u[i].d_state[0] : 0.0F;
    store_units(parts.d_h, place.row, width, place, x);
  });
}

/// Adds what is there already, if asked to, and stores.
template <int N, class T>
__device__ void store_gradient(const Gradient<T, 2>& out, Place place, float (&d)[N]) {
  if (!out.present()) return;
  const std::int64_t width = out.view.extent[1];
  float old[N];
  load_units(out.accumulate ? out.view.data : nullptr, place.row, width, place, old);
#pragma unroll
  for (int i = 0; i < N; ++i) d[i] += old[i];
  store_units(out.view.data, place.row, width, place, d);
}

/// What flows out of each row's first step, or through a row of no steps.
template <class T>
__global__ void recurrent_sequence_initial_state_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op,
    const __grid_constant__ BackwardParts<T> parts) {
  for_places<T>(op.h.extent[1], op.h.extent[2], [&](Place place) {
    const RowSteps row(op, place.row);
    const std::int64_t before_first = row.is_empty() ? row.end : row.begin - 1;
    float d[kVector<T>];
    load_state_gradient(op, parts.d_h, op.d_h_last, row, before_first, place, d);
    store_gradient(op.d_h0, place, d);
    for (std::size_t s = 0; s < op.state.size(); ++s) {
      if (!op.d_state0[s].present()) continue;
      load_state_gradient(op, parts.d_state[s], op.d_state_last[s], row, before_first, place, d);
      store_gradient(op.d_state0[s], place, d);
    }
  });
}

/// A thread per vector: zeros in `rows` rows.
template <class T>
__global__ void recurrent_sequence_zero_kernel(T* to, const std::int64_t rows,
                                               const std::int64_t width) {
  for_places<T>(rows, width, [&](Place place) {
    const float zero[kVector<T>] = {};
    store_units(to, place.row, width, place, zero);
  });
}

/// One thread per element: the biases' gradients. One sum serves both, but for split gates, whose
/// recurrent sums follow the others.
template <class T>
__global__ void recurrent_sequence_bias_kernel(const __grid_constant__ Gradient<float, 1> out,
                                               const __grid_constant__ View<const float, 1> sum,
                                               const std::int64_t joint, const std::int64_t split) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       k < out.view.extent[0]; k += stride) {
    const float d = sum.data[k < joint ? k : k + split];
    out.view.data[k] = d + (out.accumulate ? out.view.data[k] : 0.0F);
  }
}

/// A thread per vector: rows of `to` [T·B, C] as `from`, or zeros where a row of the batch has no
/// such step.
template <class T>
__global__ void recurrent_sequence_unpadded_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op, T* to) {
  const auto [steps, batch, columns] = op.x.extent;
  for_places<T>(steps * batch, columns, [&](Place place) {
    float x[kVector<T>];
    const bool has = RowSteps(op, place.row % batch).has(place.row / batch);
    load_units(has ? op.x.data : nullptr, place.row, columns, place, x);
    store_units(to, place.row, columns, place, x);
  });
}

}  // namespace carousel
