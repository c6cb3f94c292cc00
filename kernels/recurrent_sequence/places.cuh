#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/recurrent_sequence/recurrent_sequence.h"

namespace carousel {

// A thread takes one vector of units of one row, all gates of it. A step is small (32 rows of 256
// bf16 units are 1,024 threads), so blocks are small too, to reach as many processors as can be.
inline constexpr unsigned kCellThreads = 64;

struct DeviceCellMath {
  template <class R>
  static constexpr R sigmoid(R x) {
    return 1.0F / (1.0F + expf(-x));
  }
  template <class R>
  static constexpr R tanh(R x) {
    return tanhf(x);
  }
  template <class R>
  static constexpr R exp(R x) {
    return expf(x);
  }
  template <class R>
  static constexpr R log_sigmoid(R x) {
    return fminf(x, 0.0F) - log1pf(expf(-fabsf(x)));
  }
};

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
  return {.blocks = blocks_for(rows * vectors, kCellThreads), .threads = kCellThreads};
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

/// Of one row: its steps [begin, end), and what comes before step t.
struct RowSteps {
  std::int64_t begin, end;

  template <class Op>
  __device__ RowSteps(const Op& op, std::int64_t row) : begin(0), end(op.h.extent[0]) {
    const std::int64_t steps = end;
    const auto clamped = [steps](std::int64_t t) { return t < 0 ? 0 : t > steps ? steps : t; };
    if (op.rows.begin.present()) begin = clamped(op.rows.begin.data[row]);
    if (op.rows.end.present()) end = clamped(op.rows.end.data[row]);
  }
  __device__ bool has(std::int64_t t) const { return begin <= t && t < end; }
  __device__ bool is_empty() const { return begin >= end; }
};

template <class Op>
__device__ bool resets(const Op& op, std::int64_t t, std::int64_t row) {
  return op.reset.present() && op.reset.data[t * op.h.extent[1] + row] != 0;
}

/// The units of a state before step t: of the sequence, of the initial state, or zeros.
template <class Op, class Sequence, class Initial, int N>
__device__ void load_before(const Op& op, const Sequence& sequence, const Initial& initial,
                            const RowSteps& steps, std::int64_t t, Place place, float (&to)[N]) {
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  const bool forgets = resets(op, t, place.row);
  if (t > steps.begin && !forgets) {
    return load_units(sequence.data, (t - 1) * batch + place.row, width, place, to);
  }
  load_units(forgets ? nullptr : initial.data, place.row, width, place, to);
}

}  // namespace carousel
