#pragma once

#include "kernels/recurrent_sequence/cuda/backward_kernels.cuh"

// What a backward pass does besides its steps: a thread takes one vector of one row of a matrix.
namespace carousel {

/// Adds what is there already, if asked to, and stores.
template <int N, class T>
__device__ void store_gradient(const Gradient<T, 2>& out, Place place, float (&d)[N]) {
  const std::int64_t width = out.view.extent[1];
  float old[N];
  load_units(out.accumulate ? out.view.data : nullptr, place.row, width, place, old);
#pragma unroll
  for (int i = 0; i < N; ++i) d[i] += old[i];
  store_units(out.view.data, place.row, width, place, d);
}

/// What flows out of each row's first step, or through a row of no steps: to the initial state, to
/// `start`, or to both where the first is absent and thus means the second.
template <class T, class S>
__global__ void recurrent_sequence_initial_state_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op, const __grid_constant__ StateFlow flow,
    const std::int64_t width, const __grid_constant__ View<const S, 2> initial,
    const __grid_constant__ View<const S, 2> last, const __grid_constant__ Gradient<S, 2> out) {
  for_places<S>(op.h.extent[1], width, [&](Place place) {
    const RowSteps row(op, place.row);
    const bool is_cut = !row.is_empty() && row.is_cut(op, row.first());
    const bool restarts = op.carried.present() && op.carried.data[place.row] == 0;
    float d[kVector<S>];
    if (row.is_empty()) {
      load_units(last.data, place.row, width, place, d);
    } else {
      load_flow(flow, width, place, d);
    }
    if (flow.start != nullptr && (is_cut || restarts || !initial.present())) {
      add_units(flow.start, place.row, width, place, d);
    }
    if (!out.present()) return;
    if (is_cut || restarts) {
#pragma unroll
      for (float& x : d) x = 0.0F;
    }
    store_gradient(out, place, d);
  });
}

/// Zeros in `rows` rows.
template <class T>
__global__ void recurrent_sequence_zero_kernel(T* to, const std::int64_t rows,
                                               const std::int64_t width) {
  for_places<T>(rows, width, [&](Place place) {
    const float zero[kVector<T>] = {};
    store_units(to, place.row, width, place, zero);
  });
}

/// The operands of phase 0 in all steps, or zeros where a row of the batch has no such step.
template <class T>
__global__ void recurrent_sequence_h_before_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op, const float* factors, T* to) {
  const auto [steps, batch, width] = op.h.extent;
  for_places<T>(steps * batch, width, [&, batch = batch, width = width](Place place) {
    const std::int64_t t = place.row / batch;
    const Place in_batch{place.row % batch, place.unit, place.count};
    const RowSteps row(op, in_batch.row);
    float x[kVector<T>] = {};
    if (row.has(t)) {
      load_before(op, op.h, op.h0, op.start[0], row, t, in_batch, x);
      drop_out(factors, width, in_batch, x);
    }
    store_units(to, place.row, width, place, x);
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

/// The rows of x, or zeros where a row of the batch has no such step.
template <class T>
__global__ void recurrent_sequence_unpadded_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op, T* to) {
  const auto [steps, batch, columns] = op.x.extent;
  for_places<T>(steps * batch, columns, [&, batch = batch, columns = columns](Place place) {
    float x[kVector<T>];
    const bool has = RowSteps(op, place.row % batch).has(place.row / batch);
    load_units(has ? op.x.data : nullptr, place.row, columns, place, x);
    store_units(to, place.row, columns, place, x);
  });
}

}  // namespace carousel
