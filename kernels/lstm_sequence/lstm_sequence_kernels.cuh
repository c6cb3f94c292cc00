#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/lstm_sequence/lstm_sequence.h"

namespace carousel {

// A thread takes one vector of units of one row, all four gates of it. A step is small (32 rows of
// 256 bf16 units are 1,024 threads), so blocks are small too, to reach as many processors as can be.
inline constexpr unsigned kLstmThreads = 64;

/// The units a thread works on: `count` from `unit` on, of which a vector at most.
struct Place {
  std::int64_t row, unit, count;
};

/// Calls f(place) for this thread's share of `rows` rows of `width` units, a vector of T each.
template <class T, class F>
__device__ void for_places(std::int64_t rows, std::int64_t width, const F& f) {
  const std::int64_t vectors = (width + kVector<T> - 1) / kVector<T>;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < rows * vectors; i += stride) {
    const std::int64_t unit = i % vectors * kVector<T>;
    f(Place{i / vectors, unit, width - unit});
  }
}

template <class T>
Grid grid_of_places(std::int64_t rows, std::int64_t width) {
  const std::int64_t vectors = (width + kVector<T> - 1) / kVector<T>;
  return {.blocks = blocks_for(rows * vectors, kLstmThreads), .threads = kLstmThreads};
}

/// The units at `place` of a matrix's row `row`, or zeros where the matrix is absent.
template <int N, class T>
__device__ void load_units(const T* matrix, std::int64_t row, std::int64_t width, Place place,
                           float (&to)[N]) {
  if (matrix != nullptr) return load<N>(matrix + row * width + place.unit, place.count, to);
#pragma unroll
  for (float& x : to) x = 0.0F;
}

template <int N, class T>
__device__ void store_units(T* matrix, std::int64_t row, std::int64_t width, Place place,
                            const float (&from)[N]) {
  store<N>(matrix + row * width + place.unit, place.count, from);
}

inline __device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

struct ForwardStep {
  std::int64_t t;
  const float* recurrent;  ///< [B, 4H] W_hh·h[t−1], or null where h[t−1] is 0
  const float* c_before;   ///< [B, H]  c[t−1] or null
};

template <class T>
__global__ void lstm_sequence_forward_kernel(const __grid_constant__ LstmSequenceForward<T> op,
                                             const __grid_constant__ ForwardStep step) {
  constexpr int N = kVector<T>;
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  for_places<T>(batch, width, [&](Place place) {
    const std::int64_t n = step.t * batch + place.row;
    const bool fresh = op.reset.present() && op.reset.data[n] != 0;
    float a[4][N], bias[N], x[N];
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
      load_units(op.gates.data, n * 4 + gate, width, place, a[gate]);
      load_units(fresh ? nullptr : step.recurrent, place.row * 4 + gate, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) a[gate][i] += x[i];
      load_units(op.bias_ih.data, gate, width, place, bias);
      load_units(op.bias_hh.data, gate, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) a[gate][i] += bias[i] + x[i];
    }
    float c[N], h[N];
    load_units(fresh ? nullptr : step.c_before, place.row, width, place, c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      a[0][i] = sigmoid(a[0][i]);
      a[1][i] = sigmoid(a[1][i]);
      a[2][i] = tanhf(a[2][i]);
      a[3][i] = sigmoid(a[3][i]);
      c[i] = a[1][i] * c[i] + a[0][i] * a[2][i];
      h[i] = a[3][i] * tanhf(c[i]);
    }
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
      store_units(op.gates.data, n * 4 + gate, width, place, a[gate]);
    }
    store_units(op.c.data, n, width, place, c);
    store_units(op.h.data, n, width, place, h);
  });
}

/// The buffers of a backward pass, in scratch.
template <class T>
struct BackwardParts {
  float* d_h_recurrent;  ///< [B, H] W_hhᵀ·δa of the step after
  float* d_c;            ///< [B, H] f ∘ δc of the step after
  T* h_before;           ///< [T, B, H] ĥ, or null where no row resets
};

/// What flows into the state that leaves step t: from step t + 1, or from outside behind the last.
/// Step −1 leaves the initial state.
template <class T, int N>
__device__ void load_state_gradients(const LstmSequenceBackward<T>& op,
                                     const BackwardParts<T>& parts, std::int64_t t, Place place,
                                     float (&d_h)[N], float (&d_c)[N]) {
  const std::int64_t steps = op.h.extent[0], batch = op.h.extent[1], width = op.h.extent[2];
  if (t + 1 < steps) {
    const bool cut = op.reset.present() && op.reset.data[(t + 1) * batch + place.row] != 0;
    load_units(cut ? nullptr : parts.d_h_recurrent, place.row, width, place, d_h);
    load_units(cut ? nullptr : parts.d_c, place.row, width, place, d_c);
  } else {
    load_units(op.d_h_last.data, place.row, width, place, d_h);
    load_units(op.d_c_last.data, place.row, width, place, d_c);
  }
}

template <class T>
__global__ void lstm_sequence_backward_kernel(const __grid_constant__ LstmSequenceBackward<T> op,
                                              const __grid_constant__ BackwardParts<T> parts,
                                              const std::int64_t t) {
  constexpr int N = kVector<T>;
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  const float* const all_c_before = t == 0 ? op.c0.data : op.c.data + (t - 1) * batch * width;
  const T* const all_h_before = t == 0 ? op.h0.data : op.h.data + (t - 1) * batch * width;
  for_places<T>(batch, width, [&](Place place) {
    const std::int64_t n = t * batch + place.row;
    const bool fresh = op.reset.present() && op.reset.data[n] != 0;
    float d_h[N], d_c[N], x[N];
    load_state_gradients(op, parts, t, place, d_h, d_c);
    load_units(op.d_h.data, n, width, place, x);
    float a[4][N], c[N], c_before[N];
#pragma unroll
    for (int gate = 0; gate < 4; ++gate)
      load_units(op.gates.data, n * 4 + gate, width, place, a[gate]);
    load_units(op.c.data, n, width, place, c);
    load_units(fresh ? nullptr : all_c_before, place.row, width, place, c_before);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float i = a[0][k], f = a[1][k], g = a[2][k], o = a[3][k];
      const float tanh_c = tanhf(c[k]);
      const float d_hidden = x[k] + d_h[k];
      const float d_cell = d_hidden * o * (1.0F - tanh_c * tanh_c) + d_c[k];
      a[0][k] = d_cell * g * (i * (1.0F - i));
      a[1][k] = d_cell * c_before[k] * (f * (1.0F - f));
      a[2][k] = d_cell * i * (1.0F - g * g);
      a[3][k] = d_hidden * tanh_c * (o * (1.0F - o));
      d_c[k] = d_cell * f;
    }
#pragma unroll
    for (int gate = 0; gate < 4; ++gate)
      store_units(op.gates.data, n * 4 + gate, width, place, a[gate]);
    store_units(parts.d_c, place.row, width, place, d_c);
    if (parts.h_before != nullptr) {
      load_units(fresh ? nullptr : all_h_before, place.row, width, place, x);
      store_units(parts.h_before, n, width, place, x);
    }
  });
}

/// Adds what is there already, if asked to, and stores.
template <int N, class T>
__device__ void store_gradient(const View<T, 2>& out, bool accumulate, Place place, float (&d)[N]) {
  if (!out.present()) return;
  const std::int64_t width = out.extent[1];
  float old[N];
  load_units(accumulate ? out.data : nullptr, place.row, width, place, old);
#pragma unroll
  for (int i = 0; i < N; ++i) d[i] += old[i];
  store_units(out.data, place.row, width, place, d);
}

template <class T>
__global__ void lstm_sequence_initial_state_kernel(
    const __grid_constant__ LstmSequenceBackward<T> op,
    const __grid_constant__ BackwardParts<T> parts) {
  for_places<T>(op.h.extent[1], op.h.extent[2], [&](Place place) {
    float d_h[kVector<T>], d_c[kVector<T>];
    load_state_gradients(op, parts, -1, place, d_h, d_c);
    store_gradient(op.d_h0, op.accumulate_d_h0, place, d_h);
    store_gradient(op.d_c0, op.accumulate_d_c0, place, d_c);
  });
}

/// One sum serves both biases. One thread per element.
template <class T>
__global__ void lstm_sequence_bias_kernel(const __grid_constant__ LstmSequenceBackward<T> op,
                                          const __grid_constant__ View<const float, 1> sum) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       k < sum.extent[0]; k += stride) {
    if (op.d_bias_ih.present()) {
      op.d_bias_ih(k) = sum(k) + (op.accumulate_d_bias_ih ? op.d_bias_ih(k) : 0.0F);
    }
    if (op.d_bias_hh.present()) {
      op.d_bias_hh(k) = sum(k) + (op.accumulate_d_bias_hh ? op.d_bias_hh(k) : 0.0F);
    }
  }
}

}  // namespace carousel
